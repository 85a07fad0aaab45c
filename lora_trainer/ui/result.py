"""After training and after the test: the finished LoRA is published, and the record tells what is to know of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from lora_trainer.evaluation.publish import publish

if TYPE_CHECKING:
    from lora_trainer.evaluation.events import TestedImage
    from lora_trainer.hosts.base import Host
    from lora_trainer.ui.status import Record


def publish_result(
    host: Host, lora: Path, record: Record, report: Path | None = None, pictures: Sequence[TestedImage] = ()
) -> None:
    """Publish the LoRA with the best picture there is."""
    if not lora.is_file():
        return
    sample = None if pictures else _last_sample(record)
    for line in publish(host, lora, report=report, pictures=pictures, sample=sample, modules=record.modules):
        record.tell(line)


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
