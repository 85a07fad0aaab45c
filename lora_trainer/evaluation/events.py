"""What a test tells while it goes on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lora_trainer.evaluation.plan import Shot
from lora_trainer.training.events import Notice

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class TestedImage:
    """One picture of the test is made and saved."""

    done: int
    total: int
    shot: Shot
    image: Image
    infotext: str
    prompt: str
    path: Path


@dataclass(frozen=True)
class TestFinished:
    """The test ended, after all pictures or when it was stopped; the report says which."""

    lora: Path
    report: Path  # report.json
    page: Path  # report.html
    grids: tuple[Path, ...]
    images: int
    stopped: bool


TestEvent = TestedImage | Notice | TestFinished
