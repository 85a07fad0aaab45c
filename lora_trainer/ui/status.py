"""What a page sees of a job: a record that the job's thread writes and any other reads at once."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from lora_trainer.errors import LoraTrainerError, counted
from lora_trainer.hosts.base import Progress
from lora_trainer.training.events import (
    Finished,
    Learned,
    MemoryUse,
    Notice,
    Planned,
    Preparing,
    Sampled,
    Saved,
    Started,
    StepDone,
)
from lora_trainer.ui.states import RUNNING, Stage, State

if TYPE_CHECKING:
    from lora_trainer.evaluation.events import TestEvent, TestPlanned
    from lora_trainer.training.events import Event

ROUTE = "/lora-trainer"
MOST_POINTS = 1000  # of the loss curve; beyond that every other one is dropped
MOST_PICTURES = 300
RECENT = 20  # steps whose duration makes the estimate


def file_url(name: str, path: Path, output: Path) -> str:
    """Where the routes serve a file of the run ``name``."""
    return f"{ROUTE}/report/{quote(name)}/{quote(path.relative_to(output / name).as_posix())}"


@dataclass
class Record:
    """One job, from its start to its end. Every method holds the lock for a few assignments only."""

    job: str = ""
    name: str = ""
    output: Path = Path()
    state: State = "idle"
    message: str = "Nothing has been trained yet."
    error: str = ""
    cause: LoraTrainerError | None = None  # of the error, if it is one of ours
    step: int = 0
    steps: int = 0
    epoch: int = 0
    epochs: int = 0
    modules: int = 0
    loss: float | None = None
    average: float | None = None
    lr: dict[str, float] = field(default_factory=dict)
    done: int = 0  # of what is at hand: steps, encoded images, test pictures
    total: int = 0
    what: str = ""
    outputs: list[str] = field(default_factory=list)
    losses: list[tuple[int, float, float | None]] = field(default_factory=list)  # step, loss, the base model's loss
    learned: list[Learned] = field(default_factory=list)  # at each save
    plan: dict[str, Any] | None = None
    memory: dict[str, Any] | None = None
    samples: list[dict[str, Any]] = field(default_factory=list)
    tests: list[dict[str, Any]] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    report: str = ""
    _before_pause: State = "training"
    _test: TestPlanned | None = None
    _test_began: float = 0.0
    _share: float = 0.0  # of the test that is done
    _stride: int = 1
    _seconds: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def running(self) -> bool:
        """Whether the job hasn't ended."""
        return self.state in RUNNING

    @property
    def progress(self) -> Progress:
        """For the host's own display."""
        return Progress(self.done, self.total, self.message)

    def take(self, event: Event | TestEvent) -> None:
        """Note an event of the training or of the test."""
        with self._lock:
            _NOTERS.get(type(event).__name__, Record._ignore)(self, event)

    def show(self, stage: Stage) -> None:
        """Note how an errand stands."""
        with self._lock:
            self.state, self.message = stage.state, stage.message
            self.what, self.done, self.total = stage.what, stage.done, stage.total
            self.notices += [text for text in stage.notices if text not in self.notices]

    def enter(self, state: State, message: str) -> None:
        """A new state."""
        with self._lock:
            self.state, self.message = state, message

    def pause(self) -> None:
        """The job waits; :meth:`resume` brings the former state back."""
        with self._lock:
            self._before_pause, self.state = self.state, "paused"
            self.message = f"Paused {self._place()}."

    def resume(self) -> None:
        """The job goes on."""
        with self._lock:
            self.state, self.message = self._before_pause, self._place().capitalize()

    def fail(self, sentence: str, cause: LoraTrainerError | None = None) -> None:
        """The job ended with an error."""
        with self._lock:
            self.cause = cause
            self.state, self.error, self.message = "failed", sentence, sentence

    def tell(self, notice: str) -> None:
        """One more line that the user should read."""
        with self._lock:
            if notice not in self.notices:
                self.notices.append(notice)

    def to_dict(self) -> dict[str, Any]:
        """The answer of the status route."""
        with self._lock:
            return {
                "state": self.state,
                "job": self.job,
                "name": self.name,
                "step": self.step,
                "steps": self.steps,
                "epoch": self.epoch,
                "epochs": self.epochs,
                "loss": self.loss,
                "average": self.average,
                "lr": dict(self.lr),
                "eta_seconds": self._eta(),
                "seconds_per_step": self._pace() if self.state != "testing" else None,
                "message": self.message,
                "error": self.error,
                "progress": {"what": self.what, "done": self.done, "total": self.total},
                "outputs": list(self.outputs),
                "losses": list(self.losses),
                "learned": [asdict(one) for one in self.learned],
                "plan": self.plan,
                "memory": self.memory,
                "samples": list(self.samples),
                "tests": list(self.tests),
                "notices": list(self.notices),
                "report": self.report,
            }

    def _pace(self) -> float | None:
        return sum(self._seconds) / len(self._seconds) if self._seconds else None

    def _eta(self) -> float | None:
        if self.state == "testing" and self._test is not None:
            return self._test.left(self._share, time.monotonic() - self._test_began)
        pace = self._pace()
        if pace is None or self.state not in ("training", "paused", "testing"):
            return None
        return pace * max(self.total - self.done, 0)

    def _place(self) -> str:
        if self.what == "step" and self.done:
            return f"step {self.step} of {self.steps}, epoch {self.epoch} of {self.epochs}"
        return f"{self.what} {self.done} of {self.total}"

    def _ignore(self, event: Any) -> None:
        """An event that the page doesn't need."""

    def _preparing(self, event: Preparing) -> None:
        self.state, self.what, self.done, self.total = "preparing", event.what, event.done, event.total
        self.message = f"{event.what}: {event.done} of {event.total}"

    def _started(self, event: Started) -> None:
        self.state, self.what = "training", "step"
        self.step = self.done = event.step
        self.steps = self.total = event.steps
        self.epochs, self.modules = event.epochs, event.modules
        self.message = f"Training {event.modules} modules on {counted(event.images, 'image')}"
        self._seconds.clear()
        self.losses, self._stride = [], 1  # a training that was taken back begins again
        self.learned = list(event.before.learned)
        baselines = dict(event.before.baselines)
        for step, loss in event.before.losses:
            self._point(step, loss, baselines.get(step))
        self.outputs = [str(path) for path in event.before.saved]
        self.samples = [
            {"step": step, "prompt": prompt, "url": file_url(self.name, path, self.output)}
            for step, path, prompt in event.before.samples
        ]
        del self.samples[:-MOST_PICTURES]

    def _point(self, step: int, loss: float, baseline: float | None = None) -> None:
        """One more of the curve, which stays short; the few that were compared with the base model stay in it."""
        if step % self._stride == 0 or baseline is not None:
            self.losses.append((step, round(loss, 6), None if baseline is None else round(baseline, 6)))
        if len(self.losses) > MOST_POINTS:
            self._stride *= 2
            few = sum(point[2] is not None for point in self.losses) <= MOST_POINTS // 2
            self.losses = [
                point for point in self.losses if point[0] % self._stride == 0 or (few and point[2] is not None)
            ]

    def _step_done(self, event: StepDone) -> None:
        self.step = self.done = event.step
        self.steps = self.total = event.steps
        self.epoch, self.loss, self.average, self.lr = event.epoch, event.loss, event.average, event.lr
        self.message = self._place().capitalize()
        self._seconds.append(event.seconds)
        self._point(event.step, event.loss, event.baseline)

    def _planned(self, event: Planned) -> None:
        self.plan = asdict(event)

    def _memory_use(self, event: MemoryUse) -> None:
        self.memory = asdict(event)

    def _saved(self, event: Saved) -> None:
        path = str(event.path)
        self.outputs = [*(other for other in self.outputs if other != path), path]  # the latest is the last

    def _learnt(self, event: Learned) -> None:
        self.learned.append(event)

    def _sampled(self, event: Sampled) -> None:
        url = file_url(self.name, event.path, self.output)
        self.samples.append({"step": event.step, "prompt": event.prompt, "url": url})
        del self.samples[:-MOST_PICTURES]

    def _notice(self, event: Notice) -> None:
        if event.text not in self.notices:
            self.notices.append(event.text)

    def _finished(self, event: Finished) -> None:
        how = f"Stopped after step {event.step} of {event.steps}" if event.stopped else f"{event.steps} steps done"
        saved = f"{event.path.name} is saved" if event.path else "nothing was trained yet"
        self.message = f"{how}: {saved}."
        self.notices += [text for text in event.notices if text not in self.notices]

    def _test_planned(self, event: TestPlanned) -> None:
        self._test, self._test_began, self._share = event, time.monotonic(), event.before
        self.state, self.what, self.done, self.total = "testing", "measurement", 0, 0
        self.message = event.sentence

    def _measuring(self, event: Any) -> None:
        self._share = self._test.share(event) if self._test else 0.0
        self.state, self.what, self.done, self.total = "testing", "measurement", event.done, event.total
        self.message = f"Measuring {event.file.name} at strength {event.strength:g}: {event.done} of {event.total}"

    def _tested_image(self, event: Any) -> None:
        self._share = self._test.share(event) if self._test else 0.0
        self.state, self.what, self.done, self.total = "testing", "test picture", event.done, event.total
        self.message = f"Test image {event.done} of {event.total}"
        url = file_url(self.name, event.path, self.output)
        shot = event.shot
        self.tests.append(
            {
                "kind": shot.kind, "strength": shot.strength, "seed": shot.seed, "label": shot.label,
                "prompt": event.prompt, "infotext": event.infotext, "url": url,
            }
        )  # fmt: skip
        del self.tests[:-MOST_PICTURES]

    def _test_finished(self, event: Any) -> None:
        self.report = file_url(self.name, event.page, self.output)
        how = "The test was stopped after" if event.stopped else "The test is done:"
        self.message = f"{how} {event.images} images."


_NOTERS: dict[str, Any] = {
    "Preparing": Record._preparing,
    "Started": Record._started,
    "StepDone": Record._step_done,
    "Planned": Record._planned,
    "MemoryUse": Record._memory_use,
    "Saved": Record._saved,
    "Learned": Record._learnt,
    "Sampled": Record._sampled,
    "Notice": Record._notice,
    "Watched": Record._notice,
    "Finished": Record._finished,
    "TestPlanned": Record._test_planned,
    "Measuring": Record._measuring,
    "TestedImage": Record._tested_image,
    "TestFinished": Record._test_finished,
}
