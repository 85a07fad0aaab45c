"""LoRA (Hu et al. 2021, https://arxiv.org/abs/2106.09685): y + multiplier · alpha/rank · up(down(x)).

The frozen layer stays as it is; a forward hook adds the change to its output. The weights are plain fp32 parameters,
not layers: hosts patch the classes of layers, and a parameter that nobody else knows can't be cast or moved by them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_trainer.config import NetworkConfig
from lora_trainer.errors import FileError
from lora_trainer.network.adapter import Control, Kind
from lora_trainer.network.convolution import convolve
from lora_trainer.network.targets import Target
from lora_trainer.seeds import torch_generator


@dataclass(frozen=True)
class LoraWeights:
    """One module of a file, in fp32: ``down`` [rank, in(, kh, kw)], ``up`` [out, rank(, 1, 1)]."""

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def label(self) -> str:
        """What messages call the type."""
        return "LoRA"

    @property
    def rank(self) -> int:
        """Number of rows of ``down``."""
        return int(self.down.shape[0])

    @property
    def input_width(self) -> int:
        """Columns of ``down``."""
        return int(self.down.shape[1])

    def parts(self) -> dict[str, Tensor]:
        """See :class:`lora_trainer.network.adapter.FileWeights`."""
        alpha = torch.tensor(self.alpha, dtype=torch.float64)
        return {"lora_down.weight": self.down, "lora_up.weight": self.up, "alpha": alpha}

    def change(self) -> Tensor:
        """See :class:`lora_trainer.network.adapter.FileWeights`."""
        product = self.up.flatten(1) @ self.down.flatten(1)
        return product.view(self.up.shape[0], *self.down.shape[1:]) * (self.alpha / self.rank)

    def times(self, factor: float) -> LoraWeights:
        """See :class:`lora_trainer.network.adapter.FileWeights`."""
        return LoraWeights(self.down, self.up * factor, self.alpha)

    def adapter(self, target: Target, control: Control, path: Path) -> LoraModule:
        """See :class:`lora_trainer.network.adapter.FileWeights`."""
        made = LoraModule(target, self.rank, self.alpha, control, seed=0)
        made.copy_from(self, path)
        return made


class LoraModule(Kind):
    """The LoRA of one weight.

    Its weights are ``down`` [rank, in] or [rank, in, kh, kw] and ``up`` [out, rank] or [out, rank, 1, 1]; ``up`` is
    zero at first, so the model's output is unchanged.
    """

    FILE_PARTS = MappingProxyType({
        "lora_down.weight": "down", "lora_A.weight": "down", "lora.down.weight": "down",
        "lora_linear_layer.down.weight": "down", "lora_up.weight": "up", "lora_B.weight": "up",
        "lora.up.weight": "up", "lora_linear_layer.up.weight": "up", "alpha": "alpha",
    })  # fmt: skip
    LORA_PLUS = frozenset({"up"})
    LABEL = "LoRA"

    def __init__(self, target: Target, rank: int, alpha: float, control: Control, seed: int) -> None:
        super().__init__(target, rank, alpha, control)
        out, fan = target.shape[0], target.shape[1:]
        # Kaiming-uniform with a = √5 comes to ±1/√fan_in. Drawn without nn.init, which hosts patch while they load.
        bound = 1 / math.sqrt(math.prod(fan))
        generator = torch_generator(seed, "lora", target.key)
        down = torch.empty((rank, *fan), dtype=torch.float32).uniform_(-bound, bound, generator=generator)
        up = torch.zeros((out, rank, *(1 for _ in fan[1:])), dtype=torch.float32)
        self.weights = {"down": nn.Parameter(down), "up": nn.Parameter(up)}

    @classmethod
    def create(
        cls, target: Target, rank: int, alpha: float, control: Control, seed: int, options: NetworkConfig
    ) -> LoraModule:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        return cls(target, rank, alpha, control, seed)

    @property
    def down(self) -> Tensor:
        """[rank, in(, kh, kw)]."""
        return self.weights["down"]

    @property
    def up(self) -> nn.Parameter:
        """[out, rank(, 1, 1)]."""
        return self.weights["up"]

    @classmethod
    def read(cls, path: Path, key: str, parts: Mapping[str, Tensor]) -> LoraWeights:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        if "down" not in parts or "up" not in parts:
            raise FileError(f"{path} is incomplete: {key} lacks its {'up' if 'down' in parts else 'down'} weight.")
        down, up = (parts[name].to(torch.float32, copy=True) for name in ("down", "up"))
        if down.dim() not in (2, 4) or up.dim() != down.dim() or up.shape[1] != down.shape[0] or down.shape[0] == 0:
            raise FileError(f"{path} is no plain LoRA: {key} has shapes {tuple(down.shape)} and {tuple(up.shape)}.")
        if "alpha" in parts and parts["alpha"].numel() != 1:
            raise FileError(f"{path} is no plain LoRA: the alpha of {key} isn't one number.")
        alpha = float(parts["alpha"]) if "alpha" in parts else float(down.shape[0])
        if not (torch.isfinite(down).all() and torch.isfinite(up).all() and math.isfinite(alpha)):
            raise FileError(
                f"{path} holds NaN or infinite numbers (first in {key}); its training failed, so use an earlier epoch."
            )
        return LoraWeights(down, up, alpha)

    def copy_from(self, weights: LoraWeights, path: Path) -> None:
        """See :class:`lora_trainer.network.adapter.Adapter`; linear and 1x1 convolution stand for each other."""
        for name, own, given in (("down", self.down, weights.down), ("up", self.up, weights.up)):
            if given.numel() != own.numel() or given.shape[:2] != own.shape[:2]:
                raise FileError(
                    f"{path} doesn't fit this model: {name} of {self.key} has shape {tuple(given.shape)}, "
                    f"not {tuple(own.shape)}; use a LoRA for the same model family."
                )
            own.data.copy_(given.reshape(own.shape))
        if weights.alpha != self.alpha:
            self.up.data.mul_(weights.alpha / self.alpha)

    def file_parts(self) -> dict[str, Tensor]:
        """See :class:`lora_trainer.network.adapter.Adapter`: kohya's three tensors."""
        down, up = self.down.detach(), self.up.detach()
        if self.target.conv_in_file and down.dim() == 2:
            down, up = down[:, :, None, None], up[:, :, None, None]
        return {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(self.alpha, dtype=torch.float64)}

    @torch.no_grad()
    def take_parts(self, parts: Mapping[str, Tensor]) -> None:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        self.down.copy_(parts["lora_down.weight"].view(self.down.shape))
        self.up.copy_(parts["lora_up.weight"].view(self.up.shape))

    def change(self) -> Tensor:
        """alpha/rank · up · down, in the weight's shape."""
        return (self.up.flatten(1) @ self.down.flatten(1)).mul(self.scale).view(self.target.shape)

    @torch.no_grad()
    def norm(self) -> Tensor:
        """‖alpha/rank · up · down‖, from the rank x rank products: ‖BA‖² = Σ (BᵀB) ∘ (AAᵀ)."""
        down, up = self.down.flatten(1), self.up.flatten(1)
        squared = ((up.t() @ up) * (down @ down.t())).sum().clamp(min=0)
        return squared.sqrt() * abs(self.scale)

    @torch.no_grad()
    def shrink(self, ratio: Tensor) -> None:
        """Both factors get the square root of it."""
        self.down.mul_(ratio.sqrt())
        self.up.mul_(ratio.sqrt())

    def factors(self) -> tuple[Tensor, Tensor, float]:
        """``down``, ``up`` and alpha/rank as they take part in this step."""
        return self.down, self.up, self.scale

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        """``y`` plus the change that the input ``x`` causes."""
        control = self.control
        if not control.active or self.skipped():
            return y
        down, up, scale = self.factors()
        scale *= control.multiplier
        down, up = down.to(y), up.to(y)  # the small weights are cast, never the input to fp32
        if down.dim() == 4:
            inner = convolve(x.to(y), down, self.target.module)
            if self.drops:
                inner = inner * self.kept(inner)
            return y + F.conv2d(inner, up * scale)
        rows = control.inputs.rows(x, y, self.input_group)
        inner = torch.mm(rows, down.t())
        if self.drops:
            inner = inner.view(*x.shape[:-1], self.rank)
            inner = (inner * self.kept(inner)).view(rows.shape[0], self.rank)
        # Scale, product and sum in one operation; nothing of y's size is saved or kept beside it.
        return torch.addmm(y.reshape(-1, y.shape[-1]), inner, up.t(), alpha=scale).view(y.shape)
