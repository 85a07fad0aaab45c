"""The health of a LoRA's weights: how large the change is, and which modules do nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lora_trainer.network.adapter import Adapter
from lora_trainer.network.targets import Target

DEAD = 1e-8  # of the weight's own norm: such a change is lost in fp16


@dataclass(frozen=True)
class Health:
    """Of all modules at strength 1."""

    modules: int
    relative: float  # mean of ‖ΔW‖ ÷ ‖W‖
    largest: float  # the largest of them
    dead: tuple[str, ...]  # modules whose change is nothing


@torch.no_grad()
def health(modules: Sequence[Adapter]) -> Health:
    """Norms module by module."""
    shares, dead = [], []
    for module in modules:
        change = float(module.norm())
        own = float(_weight(module.target).float().norm())
        shares.append(change / own if own else 0.0)
        if shares[-1] < DEAD:
            dead.append(module.key)
    mean = sum(shares) / len(shares) if shares else 0.0
    return Health(len(modules), mean, max(shares, default=0.0), tuple(dead))


def _weight(target: Target) -> Tensor:
    """The weight that a module changes; open_clip keeps three of them in one."""
    module: Any = target.module
    if not target.slot:
        weight: Tensor = module.weight
        return weight
    if target.slot == "out":
        out: Tensor = module.out_proj.weight
        return out
    part: Tensor = module.in_proj_weight.chunk(3)["qkv".index(target.slot)]
    return part
