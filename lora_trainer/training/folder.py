"""The run's own folder: ``run.json``, ``log.jsonl``, ``state/``, ``samples/``."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lora_trainer.errors import FileError
from lora_trainer.files import write_json
from lora_trainer.training.events import StepDone


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
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise FileError(
                f"The output folder {self.path} can't be written ({error.strerror}). Choose another one."
            ) from error

    def start_log(self, step: int) -> None:
        """Keep the log's lines up to ``step``: a crash may have logged steps that the state doesn't know."""
        lines = self.log.read_text(encoding="utf-8").splitlines() if step and self.log.is_file() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        self.log.write_text("".join(line + "\n" for line in kept), encoding="utf-8")

    def append_log(self, done: StepDone) -> None:
        """Add one line for a step."""
        try:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(done)) + "\n")
        except OSError as error:
            raise FileError(f"Can't write {self.log}: {error.strerror}. Free disk space, then resume.") from error

    def read_run(self) -> dict[str, Any]:
        """What :meth:`write_run` recorded.

        Raises:
            FileError: if it isn't there or is damaged.
        """
        try:
            return json.loads(self.run.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FileError(f"{self.run} can't be read; start the run anew.") from error

    def write_run(self, facts: dict[str, Any]) -> None:
        """Record the full configuration, versions, seeds and the base model."""
        write_json(self.run, facts)
