"""(IA)³ (Liu et al. 2022, https://arxiv.org/abs/2205.05638; in LyCORIS): outputs or inputs of the layer are scaled.

The change is W · w, with one number for each output (``weight`` [out], of convolutions [1, out, 1, 1]) or, with
``train_on_input``, for each input. There is no rank and no alpha.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn

from lora_trainer.config import NetworkConfig
from lora_trainer.errors import FileError
from lora_trainer.network.adapter import Control, Kind
from lora_trainer.network.targets import Target, base_weight
from lora_trainer.network.weight import WeightAdapter, finite_parts

ON_INPUT_LEAVES = ("ff_net_2", "mlp_fc2")  # LyCORIS' preset "ia3" scales the inputs of these


@dataclass(frozen=True)
class Ia3Weights:
    """One module of a file, in fp32: ``weight`` [numbers] or [1, numbers, 1, 1], and whether they are for inputs."""

    weight: Tensor
    on_input: bool
    rank: int = 1
    alpha: float = 1.0
    input_width: int = 0  # not in the file
    label: str = "(IA)³"

    def parts(self) -> dict[str, Tensor]:
        """See :class:`lora_trainer.network.adapter.FileWeights`."""
        return {"weight": self.weight, "on_input": torch.tensor(float(self.on_input))}

    def change(self) -> None:
        """It depends on the weight."""

    def times(self, factor: float) -> Ia3Weights:
        """See :class:`lora_trainer.network.adapter.FileWeights`."""
        return replace(self, weight=self.weight * factor)

    def adapter(self, target: Target, control: Control, path: Path) -> Ia3Module:
        """See :class:`lora_trainer.network.adapter.FileWeights`."""
        made = Ia3Module(target, control, self.on_input)
        made.copy_from(self, path)
        return made


class Ia3Module(WeightAdapter, Kind):
    """The scales of one weight, zero at first (a scale of 0 changes nothing)."""

    FILE_PARTS = MappingProxyType({"weight": "weight", "on_input": "on_input"})
    LABEL = "(IA)³"

    def __init__(self, target: Target, control: Control, on_input: bool) -> None:
        super().__init__(target, 1, 1.0, control)
        self.on_input = on_input
        self.weights = {"weight": nn.Parameter(torch.zeros(target.shape[1 if on_input else 0]))}

    @classmethod
    def create(
        cls, target: Target, rank: int, alpha: float, control: Control, seed: int, options: NetworkConfig
    ) -> Ia3Module:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        by_preset = options.lycoris_preset == "" or options.lycoris_preset == "ia3"
        on_input = options.train_on_input or (by_preset and target.key.endswith(ON_INPUT_LEAVES))
        return cls(target, control, on_input)

    @classmethod
    def read(cls, path: Path, key: str, parts: Mapping[str, Tensor]) -> Ia3Weights:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        tensors, _ = finite_parts(path, key, parts)
        weight, on_input = tensors.get("weight"), tensors.get("on_input", torch.zeros(()))
        if weight is None or weight.numel() != max(weight.shape, default=0) or on_input.numel() != 1:
            raise FileError(f"{path} is no (IA)³ that can be read: {key} lacks its weight, or it isn't a row.")
        return Ia3Weights(weight, bool(on_input))

    @torch.no_grad()
    def copy_from(self, weights: Ia3Weights, path: Path) -> None:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        own = self.weights["weight"]
        if weights.on_input != self.on_input or weights.weight.numel() != own.numel():
            raise FileError(
                f"{path} doesn't fit: {self.key} has {weights.weight.numel()} numbers for "
                f"{'inputs' if weights.on_input else 'outputs'}, not {own.numel()} for "
                f"{'inputs' if self.on_input else 'outputs'}; use a file for the same model family and settings."
            )
        own.copy_(weights.weight.flatten())

    def file_parts(self) -> dict[str, Tensor]:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        weight = self.weights["weight"].detach()
        if len(self.target.shape) == 4 or self.target.conv_in_file:
            weight = weight.view(1, -1, 1, 1)
        return {"weight": weight, "on_input": torch.tensor(float(self.on_input))}

    @torch.no_grad()
    def take_parts(self, parts: Mapping[str, Tensor]) -> None:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        self.weights["weight"].copy_(parts["weight"].flatten())

    def change(self) -> Tensor:
        """W · w."""
        scales = self.weights["weight"]
        shape = [1] * len(self.target.shape)
        shape[1 if self.on_input else 0] = -1
        return base_weight(self.target).detach().to(scales) * scales.view(shape)

    @torch.no_grad()
    def shrink(self, ratio: Tensor) -> None:
        """The change is proportional to the scales."""
        self.weights["weight"].mul_(ratio)
