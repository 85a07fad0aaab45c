"""The run's own folder: ``run.json``, ``log.jsonl``, ``state/``, ``samples/``."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lora_trainer.errors import FileError
from lora_trainer.files import check_writable, parse_json, read_object, write_json, write_text
from lora_trainer.training.events import StepDone

log = logging.getLogger(__name__)


class RunFolder:
    """Paths and writers of ``<output>/NAME/``."""

    def __init__(self, output: Path, name: str) -> None:
        self.path = output / name
        self.cache = output / "cache"  # shared by all runs of this output folder
        self.state = self.path / "state" / "state.pt"
        self.samples = self.path / "samples"
        self.log = self.path / "log.jsonl"
        self.run = self.path / "run.json"

    def prepare(self) -> None:
        """Make the folder; found unwritable here rather than after an hour.

        Raises:
            FileError: in one sentence.
        """
        check_writable(self.path, "output folder")

    def start_log(self, step: int) -> None:
        """Keep the log's lines up to ``step``: a crash may have logged steps that the state doesn't know."""
        lines = (
            self.log.read_text(encoding="utf-8", errors="replace").splitlines() if step and self.log.is_file() else []
        )
        write_text(self.log, "".join(line + "\n" for line in lines if _step_of(line) <= step))

    def append_log(self, done: StepDone) -> None:
        """Add one line for a step. A line that can't be written is left out: the run is worth more."""
        values = {name: _finite(value) for name, value in asdict(done).items()}
        try:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(values) + "\n")
        except OSError as error:
            log.warning("Step %d isn't in %s: %s", done.step, self.log, error.strerror)

    def read_run(self) -> dict[str, Any]:
        """What :meth:`write_run` recorded.

        Raises:
            FileError: if it isn't there or is damaged.
        """
        return read_object(self.run)

    def write_run(self, facts: dict[str, Any]) -> None:
        """Record the full configuration, versions, seeds and the base model."""
        write_json(self.run, facts)


def _step_of(line: str) -> float:
    """The step of a log line; infinite for one that was torn by a crash."""
    try:
        return float(parse_json(line, "a line")["step"])
    except (FileError, ValueError, KeyError, TypeError, OverflowError):
        return math.inf


def _finite(value: Any) -> Any:
    """JSON has no infinity; the gradient norm of an fp16 step that overflowed is one."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
