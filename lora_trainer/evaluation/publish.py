"""The card of a LoRA that was trained or tested: trigger, recommended strength, best picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lora_trainer.card import Card, write_card
from lora_trainer.evaluation.lora_file import read_trigger
from lora_trainer.evaluation.prompts import DEFAULT_STRENGTH

if TYPE_CHECKING:
    from PIL.Image import Image

    from lora_trainer.evaluation.sweep import TestedImage
    from lora_trainer.families import Family


def publish_card(
    lora: Path,
    family: Family,
    report: Path | None = None,
    pictures: Sequence[TestedImage] = (),
    sample: Image | None = None,
) -> Card:
    """Write the card.

    Args:
        report: ``report.json`` of the test, which recommends a strength.
        pictures: the test's; the first of the sweep at that strength, or nearest to it, becomes the preview.
        sample: the preview where there is no test.

    Raises:
        FileError: if the folder can't be written.
    """
    strength = DEFAULT_STRENGTH
    if report is not None:
        strength = float(json.loads(report.read_text(encoding="utf-8"))["recommended"]["strength"])
    sweep = [picture for picture in pictures if picture.shot.kind == "strength"]
    best = min(sweep, key=lambda picture: abs(picture.shot.strength - strength), default=None)
    return write_card(
        lora,
        trigger=read_trigger(lora),
        preferred_weight=strength,
        family=family,
        preview=best.image if best else sample,
        infotext=best.infotext if best else "",
    )
