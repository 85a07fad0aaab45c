"""Whether the base model's own weights can be computed with: looked at before the first step, and after a NaN."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from lora_trainer.hosts.base import TakenModel


def broken_weights(model: TakenModel) -> str:
    """A sentence on the base model's weights that are NaN or infinite; "" if all are finite.

    One sum over each weight, where it lies; only one that isn't finite is looked at closely.
    """
    for part, module in _parts(model):
        found = [name for name, weight in _suspects(module) if not bool(torch.isfinite(weight).all())]
        if found:
            half = next(module.parameters()).dtype == torch.float16
            kind = "numbers that fp16 can't hold" if half and not _has_nan(module) else "NaN or infinite numbers"
            remedy = "set mixed_precision to bf16 or no, or use another file" if half else "use another copy of it"
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            return (
                f"The checkpoint {model.info.checkpoint} can't be trained, because its {part} holds {kind} ({found[0]}"
                f"{more}); {remedy}."
            )
    return ""


def _suspects(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """The weights whose sum isn't finite; asked of the device once, not for each of them."""
    named = [(name, weight) for name, weight in module.named_parameters() if weight.is_floating_point()]
    sums: dict[torch.device, list[tuple[int, torch.Tensor]]] = {}
    with torch.no_grad():
        for index, (_, weight) in enumerate(named):
            sums.setdefault(weight.device, []).append((index, weight.sum(dtype=torch.float32)))
    return [
        named[index]
        for on_device in sums.values()
        for (index, _), finite in zip(
            on_device, torch.isfinite(torch.stack([total for _, total in on_device])).tolist(), strict=True
        )
        if not finite
    ]


def _parts(model: TakenModel) -> Iterator[tuple[str, nn.Module]]:
    yield "UNet", model.unet
    for encoder in model.text_encoders:
        yield "text encoder", encoder.module


def _has_nan(module: nn.Module) -> bool:
    return any(bool(torch.isnan(weight).any()) for weight in module.parameters())
