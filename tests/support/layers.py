"""A frozen layer with an input, and a LoRA for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lora_trainer.network.adapter import Control
from lora_trainer.network.lora import LoraModule
from lora_trainer.network.targets import Target


def layer(kind: str, dtype: torch.dtype = torch.float32, **options: Any) -> tuple[nn.Module, Tensor]:
    """A frozen layer and an input."""
    generator = torch.Generator().manual_seed(5)
    module: nn.Module
    if kind in ("linear", "bias"):
        module, x = nn.Linear(6, 10, bias=kind == "bias"), torch.randn(3, 5, 6, generator=generator)
    else:
        size = int(kind[-1])
        module = nn.Conv2d(6, 10, size, **{"padding": size // 2, **options})
        x = torch.randn(3, 6, 8, 8, generator=generator)
    for parameter in module.parameters():
        parameter.data.uniform_(-0.5, 0.5, generator=generator)
    return module.to(dtype).requires_grad_(False), x.to(dtype)


def lora(module: nn.Module, rank: int = 4, alpha: float = 2.0, key: str = "k", **control: Any) -> LoraModule:
    """A LoRA with a non-zero up matrix for a layer."""
    target = Target(key, "path", module, tuple(module.weight.shape), "unet")  # type: ignore[arg-type, union-attr]
    made = LoraModule(target, rank, alpha, Control(**control), seed=1)
    made.up.data.uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(2))
    return made


def merged(made: LoraModule, module: Any, multiplier: float) -> nn.Module:
    """The layer with W + multiplier · alpha/r · B·A, computed index by index."""
    down, up = made.down.detach().double().flatten(1), made.up.detach().double().flatten(1)
    change = torch.einsum("or,ri->oi", up, down).view(module.weight.shape) * (made.alpha / made.rank * multiplier)
    clone: nn.Module = type(module)(
        *((module.in_features, module.out_features) if isinstance(module, nn.Linear) else (6, 10, module.kernel_size)),
        **({} if isinstance(module, nn.Linear) else {"padding": module.padding, "stride": module.stride}),
        bias=module.bias is not None,
    )  # fmt: skip
    clone.weight = nn.Parameter((module.weight.double() + change).float())
    clone.bias = module.bias
    return clone
