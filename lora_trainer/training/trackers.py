"""The run's figures elsewhere: TensorBoard files in its folder, or Weights & Biases, by accelerate's trackers.

A tracker that isn't there, or fails, is told once; the run and its own log go on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from lora_trainer.errors import first_line
from lora_trainer.training.events import Event, Learned, Notice, StepDone

if TYPE_CHECKING:
    from lora_trainer.training.session import Session

log = logging.getLogger(__name__)

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb"}  # the package of each tracker
FOLDER = "tensorboard"  # in the run's folder
PROJECT = "lora-trainer"


class Trackers:
    """What a run's ``log_with`` asks for. Use it as a context; nothing is opened on any but the main process."""

    def __init__(self, run: Session) -> None:
        self._run, self._open, self.notices = run, dict[str, Any](), list[str]()

    def __enter__(self) -> Trackers:
        asked = self._run.config.save.log_with
        names = [name for name in PACKAGES if asked in (name, "all")] if self._run.processes.is_main else []
        for name in names:
            if find_spec(PACKAGES[name]) is not None:
                self._try(name, self._start)
            elif asked != "all":
                self.notices.append(f"Nothing is logged to {name}: its package isn't installed; pip install {name}.")
        return self

    def __exit__(self, *error: object) -> None:
        for name in list(self._open):
            self._try(name, lambda name: self._open.pop(name).finish())

    def read(self, event: Event) -> Iterator[Notice]:
        """Hand a step's figures on; why not, the first time that it fails."""
        values = _values(event)
        if values is not None:
            for name in list(self._open):
                self._try(name, lambda name: self._open[name].log(*values))
        news, self.notices = self.notices, []
        yield from map(Notice, news)

    def _start(self, name: str) -> None:
        from accelerate.tracking import TensorBoardTracker, WandBTracker

        folder = self._run.folder
        if name == "tensorboard":
            tracker: Any = TensorBoardTracker(FOLDER, str(folder.path))
        else:
            import wandb

            if not wandb.api.api_key and wandb.Settings().mode != "offline":  # it would ask in the terminal
                raise RuntimeError("nobody is logged in; run wandb login once")
            tracker = WandBTracker(PROJECT, name=folder.name, dir=str(folder.path))
        if hasattr(tracker, "start"):  # accelerate's later ones begin with it
            tracker.start()
        self._open[name] = tracker

    def _try(self, name: str, do: Any) -> None:
        try:
            do(name)
        except Exception as error:
            log.info("Logging to %s", name, exc_info=error)
            self._open.pop(name, None)
            self.notices.append(f"Nothing more is logged to {name}: {first_line(error)}")


def _values(event: Event) -> tuple[dict[str, float], int] | None:
    """The figures of an event, and the step that they are of."""
    if isinstance(event, StepDone):
        rates = {f"lr/{name}": rate for name, rate in event.lr.items()}
        values = {"loss/current": event.loss, "loss/average": event.average, "grad_norm": event.grad_norm, **rates}
        if event.baseline is not None:
            values["loss/base model"] = event.baseline
        return values, event.step
    if isinstance(event, Learned):
        learned = {"learned/gain": event.gain, "learned/drift": event.drift, "learned/held out": event.held_out}
        return {name: value[0] for name, value in learned.items() if value is not None}, event.step
    return None
