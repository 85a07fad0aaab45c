"""What the optimiser gets: parameter groups with their learning rates, and the norm limit kept after each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lora_trainer.config import OptimizerConfig, RunConfig
from lora_trainer.network.adapter import Adapter, parameters_of
from lora_trainer.network.embedding import EmbeddingModule


def parameter_groups(modules: Sequence[Adapter], config: RunConfig) -> list[dict[str, Any]]:
    """Groups ``{"params": list, "lr": float, "name": str}`` as sd-scripts forms them.

    The learned word comes first, then text encoders, then the UNet (one group a block if learning-rate factors are
    set). LoRA+ (Hayou et al. 2024, https://arxiv.org/abs/2402.12354) puts the weights that an adapter names (LoRA: up)
    into a group of their own, with a higher rate. Groups whose rate is 0 are left out.
    """
    words = [module for module in modules if isinstance(module, EmbeddingModule)]
    text = [module for module in modules if module.target.part == "text_encoder" and module not in words]
    unet = [module for module in modules if module.target.part == "unet"]
    rates = config.optimizer
    groups = _split("embedding", words, rates.embedding_lr, 0.0)
    groups += _split("text_encoder", text, config.text_encoder_rate, _ratio(rates, "text_encoder"))
    if all(module.lr_factor == 1 for module in unet):
        return groups + _split("unet", unet, config.unet_rate, _ratio(rates, "unet"))
    blocks: dict[int, list[Adapter]] = {}
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


def _split(name: str, modules: Sequence[Adapter], rate: float, ratio: float) -> list[dict[str, Any]]:
    if not modules or rate == 0:
        return []
    if not ratio:
        return [{"params": parameters_of(modules), "lr": rate, "name": name}]
    rows: dict[bool, list[Any]] = {False: [], True: []}
    for module in modules:
        for weight, parameter in module.weights.items():
            rows[weight in module.LORA_PLUS].append(parameter)
    groups = [
        {"params": rows[False], "lr": rate, "name": name},
        {"params": rows[True], "lr": rate * ratio, "name": f"{name} plus"},
    ]
    return [group for group in groups if group["params"]]


@dataclass(frozen=True)
class NormReport:
    """What the norm limit did: modules that were scaled, mean and largest norm afterwards."""

    scaled: int
    mean: float
    largest: float


@torch.no_grad()
def limit_norms(modules: Sequence[Adapter], largest: float) -> NormReport:
    """Shrink modules whose change (Frobenius norm at multiplier 1) exceeds ``largest``, as sd-scripts does.

    With n the norm, at least largest/2, the change is multiplied by min(n, largest) / n.
    """
    if not modules:
        return NormReport(0, 0.0, 0.0)
    norms, ratios = [], []
    for module in modules:
        norm = module.limited.norm()
        bounded = norm.clamp(min=largest / 2)
        ratio = bounded.clamp(max=largest) / bounded
        module.shrink(ratio)
        norms.append(norm * ratio)
        ratios.append(ratio)
    after, factors = torch.stack(norms).cpu(), torch.stack(ratios).cpu()  # one transfer, not one for each module
    return NormReport(int((factors < 1).sum()), float(after.mean()), float(after.max()))
