"""A LoRA that was trained or tested becomes known: its card, the host's list, and whether the host uses all of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lora_trainer.card import write_card
from lora_trainer.evaluation.events import TestedImage
from lora_trainer.evaluation.lora_file import read_trigger
from lora_trainer.evaluation.prompts import DEFAULT_STRENGTH
from lora_trainer.evaluation.tested import best_strength
from lora_trainer.evaluation.trained import read_run

if TYPE_CHECKING:
    from PIL.Image import Image

    from lora_trainer.hosts.base import Host


def publish(
    host: Host,
    lora: Path,
    *,
    report: Path | None = None,
    pictures: Sequence[TestedImage] = (),
    sample: Image | None = None,
    modules: int = 0,
) -> tuple[str, ...]:
    """Write the card, refresh the host's list; gives lines that the user should read.

    Args:
        report: ``report.json`` of the test, which recommends a strength.
        pictures: the test's; the first of the sweep at that strength, or nearest to it, becomes the preview.
        sample: the preview where there is no test.
        modules: how many were trained; 0 if that isn't known.

    Raises:
        FileError: if the folder can't be written.
    """
    strength = (best_strength(read_run(report), lora.name) if report else None) or DEFAULT_STRENGTH
    sweep = [picture for picture in pictures if picture.shot.kind == "strength"]
    best = min(sweep, key=lambda picture: abs(picture.shot.strength - strength), default=None)
    card = write_card(
        lora,
        trigger=read_trigger(lora),
        preferred_weight=strength,
        family=host.info().family,
        preview=best.image if best else sample,
        infotext=best.infotext if best else "",
    )
    host.refresh_loras([lora])
    applied = host.lora_modules(lora)
    if modules and applied is not None and applied != modules:
        return (*card.notices, f"{modules} modules were trained, but {host.name} applies {applied} of {lora.name}.")
    return card.notices
