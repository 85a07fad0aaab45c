"""Changes of norm layers (LyCORIS' ``train_norm``): their factors and offsets are trained along with the other weights.

``w_norm`` and ``b_norm`` [channels] are added to what the frozen layer multiplies with and adds after normalising.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_trainer.config import NetworkConfig
from lora_trainer.errors import FileError
from lora_trainer.network.adapter import Control, Kind
from lora_trainer.network.targets import Target
from lora_trainer.network.weight import finite_parts


@dataclass(frozen=True)
class NormWeights:
    """One norm layer of a file, in fp32, [channels] each."""

    w_norm: Tensor
    b_norm: Tensor
    rank: int = 1
    alpha: float = 1.0
    input_width: int = 0
    label: str = "norm layers"

    def parts(self) -> dict[str, Tensor]:
        """See :class:`lora_trainer.network.adapter.FileWeights`."""
        return {"w_norm": self.w_norm, "b_norm": self.b_norm}

    def change(self) -> None:
        """Factors and offsets are no weight's change."""

    def times(self, factor: float) -> NormWeights:
        """See :class:`lora_trainer.network.adapter.FileWeights`."""
        return NormWeights(self.w_norm * factor, self.b_norm * factor)

    def adapter(self, target: Target, control: Control, path: Path) -> NormModule:
        """See :class:`lora_trainer.network.adapter.FileWeights`."""
        made = NormModule(target, control)
        made.copy_from(self, path)
        return made


class NormModule(Kind):
    """The change of one layer norm or group norm, zero at first."""

    FILE_PARTS = MappingProxyType({"w_norm": "w_norm", "b_norm": "b_norm"})
    LABEL = "norm layers"

    def __init__(self, target: Target, control: Control) -> None:
        super().__init__(target, 1, 1.0, control)
        self.weights = {name: nn.Parameter(torch.zeros(target.shape)) for name in self.FILE_PARTS}

    @classmethod
    def create(
        cls, target: Target, rank: int, alpha: float, control: Control, seed: int, options: NetworkConfig
    ) -> NormModule:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        return cls(target, control)

    @classmethod
    def read(cls, path: Path, key: str, parts: Mapping[str, Tensor]) -> NormWeights:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        tensors, _ = finite_parts(path, key, parts)
        factor = tensors.get("w_norm")
        offset = tensors.get("b_norm", None if factor is None else torch.zeros_like(factor))
        if factor is None or offset is None or factor.dim() != 1 or factor.shape != offset.shape:
            raise FileError(f"{path} can't be read: {key} lacks w_norm or b_norm of the same length.")
        return NormWeights(factor, offset)

    @torch.no_grad()
    def copy_from(self, weights: NormWeights, path: Path) -> None:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        for name, given in (("w_norm", weights.w_norm), ("b_norm", weights.b_norm)):
            if given.shape != self.weights[name].shape:
                raise FileError(
                    f"{path} doesn't fit this model: {name} of {self.key} has {given.numel()} channels, not "
                    f"{self.weights[name].numel()}; use a file for the same model family."
                )
            self.weights[name].copy_(given)

    def file_parts(self) -> dict[str, Tensor]:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        return {name: weight.detach() for name, weight in self.weights.items()}

    @torch.no_grad()
    def take_parts(self, parts: Mapping[str, Tensor]) -> None:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        for name, weight in self.weights.items():
            weight.copy_(parts[name])

    def change(self) -> Tensor:
        """Of the factors."""
        return self.weights["w_norm"]

    @torch.no_grad()
    def norm(self) -> Tensor:
        """Of factors and offsets together."""
        return torch.cat(list(self.weights.values())).norm()

    @torch.no_grad()
    def shrink(self, ratio: Tensor) -> None:
        """Factors and offsets alike."""
        for weight in self.weights.values():
            weight.mul_(ratio)

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        """``y`` plus what other factors and offsets make of the normalised ``x``."""
        control, module = self.control, self.target.module
        if not control.active or self.skipped():
            return y
        factor, offset = (self.weights[name] * control.multiplier for name in ("w_norm", "b_norm"))
        return y + _normalised(x.float(), module, factor, offset).to(y)


def _normalised(x: Tensor, module: Any, factor: Tensor, offset: Tensor) -> Tensor:
    """The layer's own normalisation with these factors and offsets; a group norm is known by its groups."""
    if hasattr(module, "num_groups"):
        return F.group_norm(x, module.num_groups, factor, offset, module.eps)
    return F.layer_norm(x, module.normalized_shape, factor, offset, module.eps)
