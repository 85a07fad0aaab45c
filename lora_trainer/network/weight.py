"""What the types have in common whose change isn't a product of two small factors applied to the input: LoHa, LoKr,
DoRA, (IA)³ and LoCon with Tucker decomposition.

The change of the weight is built at every step, in fp32 and with gradients, and applied to the input like a weight of
the frozen layer's kind. That is slower than LoRA, and with gradients the change is held until the backward pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_trainer.errors import FileError
from lora_trainer.network.adapter import Adapter, Control, Kind
from lora_trainer.network.convolution import convolve
from lora_trainer.network.targets import Target


def finite_parts(path: Path, key: str, parts: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], float | None]:
    """A module's tensors of a file as fp32 copies, and its alpha, None without.

    Raises:
        FileError: if one isn't finite, or alpha isn't one number.
    """
    read = {name: tensor.to(torch.float32, copy=True) for name, tensor in parts.items()}
    if not all(bool(torch.isfinite(tensor).all()) for tensor in read.values()):
        raise FileError(
            f"{path} holds NaN or infinite numbers (first in {key}); its training failed, so use an earlier epoch."
        )
    alpha = read.pop("alpha", None)
    if alpha is not None and alpha.numel() != 1:
        raise FileError(f"{path} can't be read: the alpha of {key} isn't one number.")
    return read, None if alpha is None else float(alpha)


@dataclass(frozen=True)
class WeightsOfFile:
    """One module of a file, in fp32, checked: its tensors make a change of ``outline`` (outputs, all the rest)."""

    kind: type[FactorAdapter]
    tensors: dict[str, Tensor]
    alpha: float
    rank: int
    input_width: int
    outline: tuple[int, int]

    @property
    def label(self) -> str:
        """What messages call the type."""
        return self.kind.LABEL

    def parts(self) -> dict[str, Tensor]:
        """See :class:`lora_trainer.network.adapter.FileWeights`."""
        tensors = {self.kind.IN_FILE.get(name, name): tensor for name, tensor in self.tensors.items()}
        return {**tensors, "alpha": torch.tensor(self.alpha, dtype=torch.float64)}

    def change(self) -> Tensor:
        """See :class:`lora_trainer.network.adapter.FileWeights`."""
        return self.kind.combine(self.tensors) * (self.alpha / self.rank)

    def times(self, factor: float) -> WeightsOfFile:
        """See :class:`lora_trainer.network.adapter.FileWeights`."""
        scaled = next(name for name in self.kind.SCALED if name in self.tensors)
        return replace(self, tensors={**self.tensors, scaled: self.tensors[scaled] * factor})

    def adapter(self, target: Target, control: Control, path: Path) -> FactorAdapter:
        """See :class:`lora_trainer.network.adapter.FileWeights`."""
        wanted = (target.shape[0], math.prod(target.shape[1:]))
        if self.outline != wanted:
            raise FileError(
                f"{path} doesn't fit this model: {target.key} changes a weight of {self.outline[0]} x "
                f"{self.outline[1]}, not {wanted[0]} x {wanted[1]}; use a {self.kind.LABEL} for the same model family."
            )
        return self.kind(target, self.rank, self.alpha, control, self.tensors)


class WeightAdapter(Adapter):
    """An adapter that is known by the change of the weight alone."""

    def trained_change(self) -> Tensor:
        """:meth:`change` with this step's dropout."""
        return self.kept_rows(self.change())

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        """``y`` plus the change applied to the input ``x``."""
        if not self.control.active or self.skipped():
            return y
        change = (self.trained_change() * self.control.multiplier).to(y)
        if change.dim() == 4:
            return y + convolve(x.to(y), change, self.target.module)
        return y + F.linear(x.to(y), change)


class FactorAdapter(WeightAdapter, Kind):
    """A change that is a function of small factors (:meth:`combine`) times alpha/rank.

    The factors' names are those of the file.
    """

    SCALED: ClassVar[tuple[str, ...]]
    """Factors that the change is proportional to; the first that an adapter has is scaled."""

    IN_FILE: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Names that files have for factors, where they are other ones."""

    def __init__(
        self, target: Target, rank: int, alpha: float, control: Control, tensors: Mapping[str, Tensor]
    ) -> None:
        super().__init__(target, rank, alpha, control)
        self.weights = {name: nn.Parameter(tensor.clone()) for name, tensor in tensors.items()}

    @staticmethod
    def combine(w: Mapping[str, Tensor]) -> Tensor:
        """The change at alpha = rank, of the weight's shape or flattened behind the outputs.

        Raises:
            KeyError, RuntimeError: if factors are missing or don't suit each other.
        """
        raise NotImplementedError

    @staticmethod
    def rank_of(w: Mapping[str, Tensor]) -> int:
        """The rank that factors of a file have."""
        raise NotImplementedError

    def change(self) -> Tensor:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        return self.combine(self.weights).reshape(self.target.shape) * self.scale

    @torch.no_grad()
    def shrink(self, ratio: Tensor) -> None:
        """All factors get the same share of it."""
        for factor in self.weights.values():
            factor.mul_(ratio ** (1 / len(self.weights)))

    @classmethod
    def read(cls, path: Path, key: str, parts: Mapping[str, Tensor]) -> WeightsOfFile:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        tensors, alpha = finite_parts(path, key, parts)
        try:
            rank = cls.rank_of(tensors)
            made = cls.combine({name: tensor.to("meta") for name, tensor in tensors.items()})  # shapes without work
        except (KeyError, RuntimeError, IndexError, ValueError) as error:
            shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
            raise FileError(f"{path} is no {cls.LABEL} that can be read: {key} has {shapes}.") from error
        if rank < 1 or made.numel() == 0 or not all(tensor.dim() in (2, 4) for tensor in tensors.values()):
            raise FileError(f"{path} is no {cls.LABEL} that can be read: {key} has a tensor that is empty or a row.")
        outline = int(made.shape[0]), made.numel() // int(made.shape[0])
        return WeightsOfFile(cls, tensors, float(rank) if alpha is None else alpha, rank, int(made.shape[1]), outline)

    @torch.no_grad()
    def copy_from(self, weights: WeightsOfFile, path: Path) -> None:
        """See :class:`lora_trainer.network.adapter.Adapter`; linear and 1x1 convolution stand for each other."""
        given = weights.tensors
        if given.keys() != self.weights.keys():
            raise FileError(
                f"{path} is built in another way: {self.key} has {', '.join(sorted(given))}, this configuration "
                f"{', '.join(sorted(self.weights))}; switch dim_from_weights on."
            )
        for name, own in self.weights.items():
            if given[name].numel() != own.numel() or given[name].shape[:2] != own.shape[:2]:
                raise FileError(
                    f"{path} doesn't fit this model: {name} of {self.key} has shape {tuple(given[name].shape)}, not "
                    f"{tuple(own.shape)}; use a {self.LABEL} for the same model family, or switch dim_from_weights on."
                )
            own.copy_(given[name].reshape(own.shape))
        if weights.alpha / weights.rank != self.scale:
            scaled = next(name for name in self.SCALED if name in self.weights)
            self.weights[scaled].mul_(weights.alpha / weights.rank / self.scale)

    def file_parts(self) -> dict[str, Tensor]:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        alpha = torch.tensor(self.alpha, dtype=torch.float64)
        factors = {self.IN_FILE.get(name, name): factor.detach() for name, factor in self.weights.items()}
        return {**factors, "alpha": alpha}

    @torch.no_grad()
    def take_parts(self, parts: Mapping[str, Tensor]) -> None:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        for name, factor in self.weights.items():
            factor.copy_(parts[self.IN_FILE.get(name, name)].view(factor.shape))


def tucker(core: Tensor, outputs: Tensor, inputs: Tensor) -> Tensor:
    """Σ core[i, j, …] · outputs[i, o] · inputs[j, n], [o, n, …]: Tucker decomposition with the kernel left whole."""
    return torch.einsum("ij...,io,jn->on...", core, outputs, inputs)


def uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Kaiming-uniform with a = √5, which comes to ±1/√fan_in; drawn without nn.init, which hosts patch."""
    bound = 1 / math.sqrt(math.prod(shape[1:]))
    return torch.empty(shape, dtype=torch.float32).uniform_(-bound, bound, generator=generator)


def normal(shape: tuple[int, ...], deviation: float, generator: torch.Generator) -> Tensor:
    """Normally distributed around 0."""
    return torch.empty(shape, dtype=torch.float32).normal_(0, deviation, generator=generator)
