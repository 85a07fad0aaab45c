"""One LoRA layer (Hu et al. 2021, https://arxiv.org/abs/2106.09685): y + multiplier · alpha/rank · up(down(x)).

The frozen layer stays as it is; a forward hook adds the change to its output. The weights are plain fp32 parameters,
not layers: hosts patch the classes of layers, and a parameter that nobody else knows can't be cast or moved by them.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_trainer.network.targets import Target
from lora_trainer.seeds import torch_generator


@dataclass
class Control:
    """What all layers of a network share: its strength, its dropout, and the last cast input."""

    multiplier: float = 1.0
    enabled: bool = True
    training: bool = True
    network_dropout: float = 0.0
    rank_dropout: float = 0.0
    module_dropout: float = 0.0
    step_key: tuple[int | str, ...] | None = None
    samples: tuple[int, ...] = (0,)
    inputs: InputCache = field(default_factory=lambda: InputCache())

    @property
    def active(self) -> bool:
        """Whether the hooks change anything now."""
        return self.enabled and self.multiplier != 0

    @property
    def drops(self) -> bool:
        """Whether activations or ranks are dropped now."""
        return self.training and (self.network_dropout > 0 or self.rank_dropout > 0)


class InputCache:
    """The last input in the compute type, as rows: q, k and v share one copy of it instead of saving three."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Let go of the held input."""
        self._source: weakref.ref[Tensor] | None = None
        self._kind: tuple[object, ...] = ()
        self._rows: Tensor | None = None

    def rows(self, x: Tensor, like: Tensor) -> Tensor:
        """``x`` [..., C] as [N, C] in the type and on the device of ``like``; a view where that is possible."""
        # The version tells of changes in place; rows made without gradients are no use where x has them.
        kind = (x._version, x.requires_grad and torch.is_grad_enabled(), like.dtype, like.device)
        if self._rows is None or self._source is None or self._source() is not x or self._kind != kind:
            self._rows = x.reshape(-1, x.shape[-1]).to(like)
            self._source, self._kind = weakref.ref(x), kind
        return self._rows


class LoraModule:
    """The LoRA of one weight.

    Attributes:
        down: [rank, in] or [rank, in, kh, kw], fp32.
        up: [out, rank] or [out, rank, 1, 1], fp32; zeros at first, so the model's output is unchanged.
        alpha: the change is scaled by alpha/rank.
        lr_factor: of its block, for the parameter groups.
    """

    def __init__(self, target: Target, rank: int, alpha: float, control: Control, seed: int) -> None:
        self.target = target
        self.rank = rank
        self.alpha = float(alpha)
        self.lr_factor = 1.0
        self.control = control
        out, fan = target.shape[0], target.shape[1:]
        # Kaiming-uniform with a = √5 comes to ±1/√fan_in. Drawn without nn.init, which hosts patch while they load.
        bound = 1 / math.sqrt(math.prod(fan))
        generator = torch_generator(seed, "lora", target.key)
        down = torch.empty((rank, *fan), dtype=torch.float32).uniform_(-bound, bound, generator=generator)
        up = torch.zeros((out, rank, *(1 for _ in fan[1:])), dtype=torch.float32)
        self.down = nn.Parameter(down)
        self.up = nn.Parameter(up)
        self._handle: Any = None

    @property
    def key(self) -> str:
        """kohya's name of this LoRA."""
        return self.target.key

    @property
    def scale(self) -> float:
        """alpha/rank, without the network's multiplier."""
        return self.alpha / self.rank

    @torch.no_grad()
    def delta_weight(self) -> Tensor:
        """The change of the weight at multiplier 1, in the weight's shape: alpha/rank · up · down."""
        return (self.up.flatten(1) @ self.down.flatten(1)).mul(self.scale).view(self.target.shape)

    def attach(self) -> None:
        """Add the change to the module's output from now on. Not for open_clip's attention."""
        self._handle = self.target.module.register_forward_hook(self._hook)

    def detach(self) -> None:
        """Leave the module as it was."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        """``y`` plus the change that the input ``x`` causes."""
        control = self.control
        if not control.active or self._skipped():
            return y
        scale = self.scale * control.multiplier
        down, up = self.down.to(y), self.up.to(y)  # the small weights are cast, never the input to fp32
        if down.dim() == 4:
            inner = _convolve(x.to(y), down, self.target.module)
            if control.drops:
                inner = inner * self._mask(inner)
            return y + F.conv2d(inner, up * scale)
        rows = control.inputs.rows(x, y)
        inner = torch.mm(rows, down.t())
        if control.drops:
            inner = inner.view(*x.shape[:-1], self.rank)
            inner = (inner * self._mask(inner)).view(rows.shape[0], self.rank)
        # Scale, product and sum in one operation; nothing of y's size is saved or kept beside it.
        return torch.addmm(y.reshape(-1, y.shape[-1]), inner, up.t(), alpha=scale).view(y.shape)

    def _hook(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return self.add_to(output, args[0])

    def _skipped(self) -> bool:
        """Module dropout: whether this layer sits the step out."""
        control = self.control
        if not control.training or control.module_dropout == 0:
            return False
        return float(torch.rand((), generator=self._generator("module"))) < control.module_dropout

    def _mask(self, inner: Tensor) -> Tensor:
        """What is kept of the inner activations ([B, ..., rank] or [B, rank, H, W]), scaled to keep their mean.

        Drawn per image from the step's key, not from a running state: recomputing the forward pass gives the same mask.
        """
        control, rows = self.control, inner.shape[0]
        masks = []
        for row in range(rows):
            generator = self._generator("inner", *self._sample(row, rows))
            mask = torch.ones(())
            if control.network_dropout > 0:  # as large as the activations: drawn where they are
                own = torch.Generator(inner.device).manual_seed(generator.initial_seed())
                keep = torch.rand(inner.shape[1:], generator=own, device=inner.device) >= control.network_dropout
                mask = keep / max(1 - control.network_dropout, 1e-8)
            if control.rank_dropout > 0:
                keep = torch.rand(self.rank, generator=generator) >= control.rank_dropout
                shape = (self.rank, 1, 1) if self.down.dim() == 4 else (self.rank,)
                mask = mask * (keep / max(1 - control.rank_dropout, 1e-8)).view(shape).to(mask.device)
            masks.append(mask.expand(inner.shape[1:]) if control.network_dropout > 0 else mask)
        stacked = torch.stack(masks)
        if control.network_dropout == 0 and self.down.dim() == 2:  # [B, rank] -> [B, 1…, rank]
            stacked = stacked.view(rows, *(1 for _ in inner.shape[1:-1]), self.rank)
        return stacked.to(inner)

    def _sample(self, row: int, rows: int) -> tuple[int, int]:
        """The image that a row belongs to, and which of its rows it is (a long caption has several)."""
        samples = self.control.samples
        if rows % len(samples):
            return row, 0
        each = rows // len(samples)
        return samples[row // each], row % each

    def _generator(self, *key: int | str) -> torch.Generator:
        if self.control.step_key is None:
            raise RuntimeError("LoraNetwork.begin_step must be called before a step with dropout.")
        return torch_generator(*self.control.step_key, "dropout", self.key, *key)


def _convolve(x: Tensor, down: Tensor, module: nn.Module) -> Tensor:
    """``down`` with the stride and padding of the convolution that it goes beside."""
    stride, padding, dilation = (getattr(module, name) for name in ("stride", "padding", "dilation"))
    mode = getattr(module, "padding_mode", "zeros")
    if mode != "zeros" and not isinstance(padding, str):  # a host's "tiling" makes convolutions circular
        around = [side for size in reversed(tuple(padding)) for side in (size, size)]
        x, padding = F.pad(x, around, mode=mode), 0
    return F.conv2d(x, down, None, stride, padding, dilation)


def parameters_of(modules: Sequence[LoraModule]) -> list[nn.Parameter]:
    """The parameters of some layers, down before up."""
    return [parameter for module in modules for parameter in (module.down, module.up)]
