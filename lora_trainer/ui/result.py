"""After training and after the test: the card of the finished LoRA, and whether the host can use all of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from lora_trainer.card import write_card
from lora_trainer.evaluation.lora_file import read_trigger
from lora_trainer.evaluation.prompts import DEFAULT_STRENGTH

if TYPE_CHECKING:
    from lora_trainer.evaluation.sweep import TestedImage
    from lora_trainer.hosts.base import Host
    from lora_trainer.ui.status import Record


def publish(
    host: Host, lora: Path, record: Record, report: Path | None = None, pictures: Sequence[TestedImage] = ()
) -> None:
    """Write the LoRA's card with the best picture there is, and tell what the user should know of the file."""
    if not lora.is_file():
        return
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8")) if report else {}
    strength = float(found.get("recommended", {}).get("strength", DEFAULT_STRENGTH))
    shot = _best(pictures, strength)
    card = write_card(
        lora,
        trigger=read_trigger(lora),
        preferred_weight=strength,
        family=host.info().family,
        preview=shot.image if shot else _last_sample(record),
        infotext=shot.infotext if shot else "",
    )
    for notice in card.notices:
        record.tell(notice)
    host.refresh_loras([lora])
    applied = host.lora_modules(lora)
    if record.modules and applied is not None and applied != record.modules:
        record.tell(f"{record.modules} modules were trained, but {host.name} applies {applied} of {lora.name}.")


def _best(pictures: Sequence[TestedImage], strength: float) -> TestedImage | None:
    """The first picture at the recommended strength, or the nearest to it."""
    candidates = [picture for picture in pictures if picture.shot.kind == "strength"]
    return min(candidates, key=lambda picture: abs(picture.shot.strength - strength), default=None)


def _last_sample(record: Record) -> Image.Image | None:
    folder = record.output / record.name / "samples"
    steps = [sample["step"] for sample in record.samples if sample["step"] > 0]
    if not steps:
        return None
    path = folder / f"step{max(steps):06d}_00.png"
    if not path.is_file():
        return None
    with Image.open(path) as image:
        return image.copy()
