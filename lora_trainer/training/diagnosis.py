"""Why a loss or gradient is not finite: the base model's own weights, or the training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from lora_trainer.dataset.batches import Batch
from lora_trainer.errors import LoraTrainerError, TrainingDivergedError, UnsupportedModelError
from lora_trainer.hosts.base import TakenModel

if TYPE_CHECKING:
    from lora_trainer.training.session import Session


def not_finite(run: Session, group: Sequence[Batch], what: str) -> LoraTrainerError:
    """The error for a step whose loss or gradient (``what``) is NaN or infinite; nothing of it was applied."""
    at = run.position.step
    broken = broken_weights(run.model)
    if broken:
        return UnsupportedModelError(broken)
    names = ", ".join(dict.fromkeys(run.dataset.items[sample.item].path.name for batch in group for sample in batch))
    begin = f"The {what} became NaN or infinite in step {at + 1} with {names}; "
    if not at:
        return TrainingDivergedError(
            f"{begin}nothing was trained yet. Use bf16 or fp32 instead of fp16, or leave these images out."
        )
    return TrainingDivergedError(
        f"{begin}everything up to step {at} is saved. Lower the learning rate, or use bf16 or fp32 instead of fp16, "
        "then resume."
    )


def broken_weights(model: TakenModel) -> str:
    """A sentence on the base model's weights that are NaN or infinite; "" if all are finite."""
    for part, module in _parts(model):
        found = [name for name, weight in module.named_parameters() if not bool(torch.isfinite(weight).all())]
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


def _parts(model: TakenModel) -> Iterator[tuple[str, nn.Module]]:
    yield "UNet", model.unet
    for encoder in model.text_encoders:
        yield "text encoder", encoder.module


def _has_nan(module: nn.Module) -> bool:
    return any(bool(torch.isnan(weight).any()) for weight in module.parameters())
