"""What the training loop tells the outside. The progress bar, the tab and the log are readers of these."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event as Flag
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Preparing:
    """Something before the first step makes progress: ``what`` is e.g. "caching latents"."""

    what: str
    done: int
    total: int


@dataclass(frozen=True)
class MemoryUse:
    """GiB of memory in use: of the whole card, or of this process where the model is on the processor."""

    now_gb: float
    peak_gb: float  # since the run began
    limit_gb: float  # that there are


@dataclass(frozen=True)
class Phase:
    """What a part of the run is expected to need, and what it needed: GiB at most, and minutes; None if unknown."""

    name: str  # "images", "captions" or "training"
    gb: float
    minutes: float | None = None
    measured_gb: float | None = None
    measured_minutes: float | None = None


@dataclass(frozen=True)
class Planned:
    """How the run fits the memory that it may take; told once more after the first steps, with what was measured."""

    text: str
    limit_gb: float
    phases: tuple[Phase, ...]


@dataclass(frozen=True)
class Learned:
    """What a save has learned and damaged: each the value and the bounds of its 95 % interval.

    ``gain``: ln(base model's error ÷ the LoRA's) on training images; None where there are too few of one size.
    ``held_out``: the same on images that aren't trained on; None where there are none.
    ``drift``: relative change of predictions without the trigger.
    """

    step: int
    epoch: int
    gain: tuple[float, float, float] | None
    drift: tuple[float, float, float]
    held_out: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Before:
    """What a resumed run brings along."""

    losses: tuple[tuple[int, float], ...] = ()  # of each step that it had done
    saved: tuple[Path, ...] = ()  # LoRA files
    samples: tuple[tuple[int, Path, str], ...] = ()  # step, picture, prompt
    baselines: tuple[tuple[int, float], ...] = ()  # of the steps where the base model's loss was measured
    learned: tuple[Learned, ...] = ()


@dataclass(frozen=True)
class Started:
    """The loop begins (or resumes at ``step`` > 0)."""

    step: int
    steps: int
    epochs: int
    images: int  # distinct images
    modules: int  # LoRA modules that are trained
    parameters: int
    skipped: int = 0  # files of the dataset that can't be used
    before: Before = Before()  # what a resumed run had come to


@dataclass(frozen=True)
class StepDone:
    """One optimiser step is complete; ``loss`` is the mean over its images, ``average`` that of the last epoch.

    ``baseline`` is the base model's mean loss at the same images, captions, noise and timesteps, in the steps in which
    it was measured: a loss below it is what the LoRA has learned. ``skipped``: fp16 gradients overflowed, so neither
    the weights nor the schedule moved.
    """

    step: int  # 1 after the first
    steps: int
    epoch: int  # 1 for the first
    loss: float
    average: float
    lr: dict[str, float]  # by parameter group
    grad_norm: float
    seconds: float
    baseline: float | None = None
    skipped: bool = False


@dataclass(frozen=True)
class Saved:
    """A LoRA file was written."""

    path: Path
    step: int
    epoch: int
    final: bool


@dataclass(frozen=True)
class Sampled:
    """A sample image was made; step 0 is the baseline."""

    image: Image
    path: Path
    prompt: str
    step: int


@dataclass(frozen=True)
class Notice:
    """One line that the user should read: a skipped image, an option without effect."""

    text: str


@dataclass(frozen=True)
class Watched(Notice):
    """What the watch noticed in a running training, with the remedy; ``kind`` is e.g. "loss", "slow" or "disk"."""

    kind: str = ""


@dataclass(frozen=True)
class Finished:
    """The run ended; ``stopped`` if it was cancelled before its last step. No path if that was before the first."""

    path: Path | None
    step: int
    steps: int
    stopped: bool
    notices: tuple[str, ...] = ()


Event = Preparing | Planned | Started | StepDone | Saved | Learned | MemoryUse | Sampled | Notice | Watched | Finished


@dataclass
class CancelToken:
    """Asks the loop to save and end; checked at every optimiser step and every encoded image.

    Safe to set from any thread or signal handler.
    """

    _flag: Flag = field(default_factory=Flag)
    _whole: bool = False
    _aborted: bool = False

    def cancel(self) -> None:
        """Ask for the end."""
        self._flag.set()

    @property
    def cancelled(self) -> bool:
        """Whether the end was asked for."""
        return self._flag.is_set()

    def abort(self) -> None:
        """Break off now, not at the next step; for the main thread's signal handler.

        Raises:
            KeyboardInterrupt: here, or as soon as :meth:`whole` ends.
        """
        self.cancel()
        self._aborted = True
        if not self._whole:
            raise KeyboardInterrupt

    @contextmanager
    def whole(self) -> Iterator[None]:
        """What must not be broken off in its middle: weights, optimiser and position go together."""
        self._whole = True
        try:
            yield
        finally:
            self._whole = False
        if self._aborted:
            raise KeyboardInterrupt
