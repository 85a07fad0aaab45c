"""What a test tells while it goes on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lora_trainer.errors import counted
from lora_trainer.evaluation.plan import Shot
from lora_trainer.training.events import Notice

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class TestPlanned:
    """What a test will make, told before it begins."""

    images: int
    work: int  # all of it, measuring too, as if it made nothing but images
    seconds: float | None  # by how long the training took; None if that isn't known
    before: float = 0.0  # the share that a test which is continued has done

    @property
    def sentence(self) -> str:
        """For the person who waits."""
        left = None if self.seconds is None else self.seconds * (1 - self.before)
        time = "" if left is None else f", about {_rounded(left)}"
        if self.before:
            return f"The test goes on where it was, with {self.before:.0%} of its work done{time and time + ' left'}."
        return f"The test makes {counted(self.images, 'image')} and measures: as much work as {self.work} images{time}."

    def share(self, event: Measuring | TestedImage) -> float:
        """How much of the test is done, 0…1."""
        part = event.done / max(event.total, 1)
        measuring = 1 - self.images / max(self.work, 1)
        return part * measuring if isinstance(event, Measuring) else measuring + part * (1 - measuring)

    def left(self, share: float, spent: float) -> float | None:
        """Seconds that the test still takes, by those that it took so far; None if nothing is known yet."""
        if share > self.before:
            return spent / (share - self.before) * (1 - share)
        return None if self.seconds is None else self.seconds * (1 - share)


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
class Measuring:
    """A file was measured at a strength; ``total`` is an estimate."""

    done: int
    total: int
    file: Path
    strength: float


@dataclass(frozen=True)
class TestFinished:
    """The test ended, after all pictures or when it was stopped; the report says which."""

    lora: Path
    report: Path  # report.json
    page: Path  # report.html
    grids: tuple[Path, ...]
    images: int
    stopped: bool


def _rounded(seconds: float) -> str:
    """An estimate needs no seconds."""
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(seconds, 10):.0f} s"


TestEvent = TestPlanned | Measuring | TestedImage | Notice | TestFinished
