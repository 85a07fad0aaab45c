"""The health of a LoRA's weights: how large the change is, and which modules do nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lora_trainer.network.adapter import Adapter
from lora_trainer.network.targets import base_weight

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
        own = float(base_weight(module.target).float().norm())
        shares.append(change / own if own else 0.0)
        if shares[-1] < DEAD:
            dead.append(module.key)
    mean = sum(shares) / len(shares) if shares else 0.0
    return Health(len(modules), mean, max(shares, default=0.0), tuple(dead))
