"""The adapter protocol: what is trained beside one frozen weight, whatever its type.

One type (LoRA, LoHa, LoKr, DoRA …) is one subclass of :class:`Adapter`, and mostly of :class:`Kind`, in a file of its
own, listed in :mod:`lora_trainer.network.kinds`. The network, the optimiser's groups, the norm limit, files and resume
states know adapters by this protocol alone.

An adapter holds raw fp32 parameters in :attr:`Adapter.weights` and reads them from there at every use, so that they
may be views of one buffer for all adapters. It decides itself how it takes part in the layer's forward pass
(:meth:`Adapter.attach`): by a hook that adds to the output, or by a forward of its own in which the frozen layer and
the adapter are one function.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from lora_trainer.config import NetworkConfig
from lora_trainer.network.control import Control
from lora_trainer.network.targets import Target
from lora_trainer.seeds import torch_generator

_QKV = re.compile(r"_(?:to_[qkv]|[qkv]_proj)$")


class FileWeights(Protocol):
    """One module's weights as a file has them, read and checked by the adapter type that they are of."""

    @property
    def label(self) -> str:
        """What messages call the type."""

    @property
    def rank(self) -> int:
        """Rank of the module in the file."""

    @property
    def alpha(self) -> float:
        """Alpha of the module in the file."""

    @property
    def input_width(self) -> int:
        """Channels of the input that they were made for."""

    def parts(self) -> dict[str, Tensor]:
        """What a file holds of it, by the part behind the module's key."""

    def change(self) -> Tensor | None:
        """The change of the weight at strength 1, [out, in(, kh, kw)] or flattened behind the outputs; None where it
        depends on the weight."""

    def times(self, factor: float) -> FileWeights | None:
        """Weights whose change is ``factor`` times as large; None where there are none."""

    def adapter(self, target: Target, control: Control, path: Path) -> Adapter:
        """An adapter of their type, rank and alpha that holds them.

        Raises:
            FileError: if they don't fit the target; names the file ``path``.
        """


class Adapter(ABC):
    """What is trained beside one frozen weight.

    Attributes:
        target: the weight.
        rank: the capacity.
        alpha: the change is scaled by alpha/rank.
        control: what all adapters of the network share.
        weights: the trained parameters by name, fp32.
        lr_factor: of its block, for the parameter groups.
    """

    LORA_PLUS: ClassVar[frozenset[str]] = frozenset()
    """Names of the weights that LoRA+ trains at the higher rate."""

    LABEL: ClassVar[str]
    """What messages call the type."""

    def __init__(self, target: Target, rank: int, alpha: float, control: Control) -> None:
        self.target, self.rank, self.alpha, self.control = target, rank, float(alpha), control
        self.weights: dict[str, nn.Parameter] = {}
        self.lr_factor = 1.0
        self.input_group = _QKV.sub("", target.key)
        self._handle: Any = None

    # Files

    @abstractmethod
    def copy_from(self, weights: Any, path: Path) -> None:
        """Continue with a file's weights of the same rank; where their alpha is another one, the change is the same.

        Raises:
            FileError: if the shapes differ.
        """

    @abstractmethod
    def file_parts(self) -> dict[str, Tensor]:
        """What a file holds of it, by the part behind the module's key, in the file's shapes; not copied."""

    @abstractmethod
    def take_parts(self, parts: Mapping[str, Tensor]) -> None:
        """The inverse of :meth:`file_parts`, for tensors of the same shapes."""

    # Arithmetic

    @abstractmethod
    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        """``y``, the frozen layer's output, plus the change that the input ``x`` causes."""

    @abstractmethod
    def change(self) -> Tensor:
        """The change of the weight at multiplier 1, in the weight's shape, without dropout; has gradients."""

    @torch.no_grad()
    def delta_weight(self) -> Tensor:
        """The same without gradients: what merging adds."""
        return self.change()

    @torch.no_grad()
    def norm(self) -> Tensor:
        """Frobenius norm of the change, a scalar."""
        return self.change().norm()

    @abstractmethod
    def shrink(self, ratio: Tensor) -> None:
        """Multiply the change by ``ratio``, a scalar, in place."""

    @property
    def label(self) -> str:
        """What messages call the type; equal to that of a file's weights that it can continue."""
        return self.LABEL

    @property
    def limited(self) -> Adapter:
        """What the norm limit applies to."""
        return self

    def to(self, device: torch.device | str) -> None:
        """Move all that it holds; before the optimiser is made."""
        for parameter in self.weights.values():
            parameter.data = parameter.data.to(device)

    # Taking part in the forward pass

    @property
    def key(self) -> str:
        """kohya's name of it."""
        return self.target.key

    @property
    def drops(self) -> bool:
        """Whether :meth:`kept` is anything but 1 now."""
        return self.control.drops

    @property
    def scale(self) -> float:
        """alpha/rank, without the network's multiplier."""
        return self.alpha / self.rank

    def attach(self) -> None:
        """Take part in the module's forward pass from now on. Not for open_clip's attention."""
        self._handle = self.target.module.register_forward_hook(self._hook)

    def detach(self) -> None:
        """Leave the module as it was."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _hook(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return self.add_to(output, args[0])

    # Dropout

    def skipped(self) -> bool:
        """Module dropout: whether this adapter sits the step out."""
        control = self.control
        if not control.training or control.module_dropout == 0:
            return False
        return float(torch.rand((), generator=self.generator("module"))) < control.module_dropout

    def kept(self, inner: Tensor) -> Tensor:
        """What is kept of the inner activations, scaled to keep their mean.

        Drawn per image from the step's key, not from a running state: recomputing the forward pass gives the same mask.

        Args:
            inner: [B, ..., rank] or [B, rank, H, W]; [T, B, rank] where the target has its tokens first.
        """
        if self.target.tokens_first:
            return self._kept(inner.transpose(0, 1)).transpose(0, 1)
        return self._kept(inner)

    def _kept(self, inner: Tensor) -> Tensor:
        control, rows = self.control, inner.shape[0]
        convolution = len(self.target.shape) == 4
        masks = []
        for row in range(rows):
            generator = self.generator("inner", *self._sample(row, rows))
            mask = torch.ones(())
            if control.network_dropout > 0:  # as large as the activations: drawn where they are
                own = torch.Generator(inner.device).manual_seed(generator.initial_seed())
                keep = torch.rand(inner.shape[1:], generator=own, device=inner.device) >= control.network_dropout
                mask = keep / max(1 - control.network_dropout, 1e-8)
            if control.rank_dropout > 0:
                keep = torch.rand(self.rank, generator=generator) >= control.rank_dropout
                shape = (self.rank, 1, 1) if convolution else (self.rank,)
                mask = mask * (keep / max(1 - control.rank_dropout, 1e-8)).view(shape).to(mask.device)
            masks.append(mask.expand(inner.shape[1:]) if control.network_dropout > 0 else mask)
        stacked = torch.stack(masks)
        if control.network_dropout == 0 and not convolution:  # [B, rank] -> [B, 1…, rank]
            stacked = stacked.view(rows, *(1 for _ in inner.shape[1:-1]), self.rank)
        return stacked.to(inner)

    def kept_rows(self, change: Tensor) -> Tensor:
        """Rank dropout of types whose ranks aren't to be had one by one: rows of the change, for the whole step."""
        rate = self.control.rank_dropout
        if not self.control.training or rate == 0:
            return change
        keep = torch.rand(change.shape[0], generator=self.generator("rows")) >= rate
        return change * (keep / (1 - rate)).to(change).view(-1, *(1 for _ in change.shape[1:]))

    def _sample(self, row: int, rows: int) -> tuple[int, int]:
        """The image that a row belongs to, and which of its rows it is (a long caption has several)."""
        samples = self.control.samples
        if rows % len(samples):
            return row, 0
        each = rows // len(samples)
        return samples[row // each], row % each

    def generator(self, *key: int | str) -> torch.Generator:
        """A generator for this step, this adapter and ``key``."""
        if self.control.step_key is None:
            raise RuntimeError("LoraNetwork.begin_step must be called before a step with dropout.")
        return torch_generator(*self.control.step_key, "dropout", self.key, *key)


class Kind(Adapter):
    """A type that stands on its own, and that a file is known by; all but DoRA, which stands on another one."""

    FILE_PARTS: ClassVar[Mapping[str, str]]
    """What may stand behind a module's key in a file, in all spellings -> the part that :meth:`read` is given."""

    @classmethod
    @abstractmethod
    def create(
        cls, target: Target, rank: int, alpha: float, control: Control, seed: int, options: NetworkConfig
    ) -> Adapter:
        """A new one that changes nothing yet; what is drawn depends on seed and key only.

        Args:
            options: with what only some types have, such as ``use_tucker``.
        """

    @classmethod
    @abstractmethod
    def read(cls, path: Path, key: str, parts: Mapping[str, Tensor]) -> FileWeights:
        """A module's tensors in a file, checked.

        Args:
            parts: by the names of :attr:`FILE_PARTS`.

        Raises:
            FileError: if one is missing, of an impossible shape or not finite.
        """


def parameters_of(adapters: Sequence[Adapter]) -> list[nn.Parameter]:
    """The parameters of some adapters, in order."""
    return [parameter for adapter in adapters for parameter in adapter.weights.values()]
