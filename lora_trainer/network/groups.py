"""What the optimiser gets: parameter groups with their learning rates, and the norm limit kept after each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lora_trainer.config import OptimizerConfig, RunConfig
from lora_trainer.network.lora import LoraModule


def parameter_groups(modules: Sequence[LoraModule], config: RunConfig) -> list[dict[str, Any]]:
    """Groups ``{"params": list, "lr": float, "name": str}`` as sd-scripts forms them.

    Text encoders come first, then the UNet (one group a block if learning-rate factors are set). LoRA+ (Hayou et al.
    2024, https://arxiv.org/abs/2402.12354) puts the up matrices into a group of their own, with a higher rate. Groups
    whose rate is 0 are left out.
    """
    text = [module for module in modules if module.target.part == "text_encoder"]
    unet = [module for module in modules if module.target.part == "unet"]
    rates = config.optimizer
    groups = _split("text_encoder", text, config.text_encoder_rate, _ratio(rates, "text_encoder"))
    if all(module.lr_factor == 1 for module in unet):
        return groups + _split("unet", unet, config.unet_rate, _ratio(rates, "unet"))
    blocks: dict[int, list[LoraModule]] = {}
    for module in unet:
        blocks.setdefault(module.target.block or 0, []).append(module)
    for block in sorted(blocks):
        rate = config.unet_rate * blocks[block][0].lr_factor
        groups += _split(f"unet_block{block}", blocks[block], rate, _ratio(rates, "unet"))
    return groups


def _ratio(rates: OptimizerConfig, part: str) -> float:
    """LoRA+ ratio of a part; 0 for none."""
    own = rates.loraplus_unet_lr_ratio if part == "unet" else rates.loraplus_text_encoder_lr_ratio
    return own or rates.loraplus_lr_ratio or 0.0


def _split(name: str, modules: Sequence[LoraModule], rate: float, ratio: float) -> list[dict[str, Any]]:
    if not modules or rate == 0:
        return []
    down, up = [module.down for module in modules], [module.up for module in modules]
    if not ratio:
        both = [parameter for pair in zip(down, up, strict=True) for parameter in pair]
        return [{"params": both, "lr": rate, "name": name}]
    return [
        {"params": down, "lr": rate, "name": name},
        {"params": up, "lr": rate * ratio, "name": f"{name} plus"},
    ]


@dataclass(frozen=True)
class NormReport:
    """What the norm limit did: modules that were scaled, mean and largest norm afterwards."""

    scaled: int
    mean: float
    largest: float


@torch.no_grad()
def limit_norms(modules: Sequence[LoraModule], largest: float) -> NormReport:
    """Scale down modules whose change ‖alpha/rank · up · down‖ (Frobenius) exceeds ``largest``, as sd-scripts does.

    n is the norm, at least largest/2; both factors are multiplied by √(min(n, largest) / n). The norm comes from the
    rank x rank products, ‖BA‖² = Σ (BᵀB) ∘ (AAᵀ), so the full matrix is never built.
    """
    if not modules:
        return NormReport(0, 0.0, 0.0)
    norms, ratios = [], []
    for module in modules:
        down, up = module.down.flatten(1), module.up.flatten(1)
        squared = ((up.t() @ up) * (down @ down.t())).sum().clamp(min=0)
        norm = squared.sqrt() * abs(module.scale)
        bounded = norm.clamp(min=largest / 2)
        ratio = bounded.clamp(max=largest) / bounded
        module.down.mul_(ratio.sqrt())
        module.up.mul_(ratio.sqrt())
        norms.append(norm * ratio)
        ratios.append(ratio)
    after, factors = torch.stack(norms).cpu(), torch.stack(ratios).cpu()  # one transfer, not one for each module
    return NormReport(int((factors < 1).sum()), float(after.mean()), float(after.max()))
