"""The run's own folder: ``run.json``, ``log.jsonl``, ``state/``, ``samples/``."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lora_trainer.errors import FileError
from lora_trainer.files import (
    check_writable,
    parse_json,
    read_lines,
    read_object,
    remove_leftovers,
    write_json,
    write_text,
)
from lora_trainer.training.events import Learned, StepDone

log = logging.getLogger(__name__)


LONG_AGO = 3600.0  # seconds; nothing takes that long to be written
REPORTS = ("report.json", "report.html", "strength.png", "integration.png", "epochs.png")
SHARED_NAMES = (  # in the output folder, beside the runs
    "cache", "datasets", "settings", "queue.json", "last-settings.json", "votes.jsonl",
)  # fmt: skip
UNFINISHED_TEST = "test.jsonl"
SAMPLE = r"step\d{6}_\d{2}\.png"


class RunFolder:
    """Paths and writers of ``<output>/NAME/``."""

    def __init__(self, output: Path, name: str) -> None:
        self.name = name
        self.path = output / name
        self.cache = output / "cache"  # shared by all runs of this output folder
        self.state = self.path / "state" / "state.pt"
        self.samples = self.path / "samples"
        self.log = self.path / "log.jsonl"
        self.learned = self.path / "learned.jsonl"
        self.run = self.path / "run.json"
        self.test = self.path / UNFINISHED_TEST  # of a test that didn't come to its end
        self.lock = self.path / ".lock"

    def locks(self, lora_dir: Path) -> tuple[Path, Path]:
        """What a run of this name holds: nobody else writes to its folder, or to its LoRA in ``lora_dir``."""
        return self.lock, lora_dir / f".{self.name}.lock"

    @property
    def has_state(self) -> bool:
        """Whether there is a run that can be continued."""
        return self.state.is_file() or previous(self.state).is_file()

    def prepare(self) -> None:
        """Make the folder; found unwritable here rather than after an hour.

        Raises:
            FileError: in one sentence.
        """
        check_writable(self.path, "output folder")

    def results(self) -> list[Path]:
        """What a run and its test leave for people to look at."""
        found = [self.path / name for name in REPORTS]
        return [path for path in found if path.is_file()] + self._samples()

    def forget(self) -> None:
        """Take away what a run that is replaced has left, so that it isn't taken for a part of the new one."""
        for path in [self.state, previous(self.state), *self._samples()]:
            with suppress(OSError):
                path.unlink()

    def set_state_aside(self) -> None:
        """The newest state is damaged: keep it from taking the place of the one before."""
        with suppress(OSError):
            self.state.replace(self.state.with_name("damaged.pt"))

    def sweep(self, lora_dir: Path) -> None:
        """Remove the half-written files of killed runs of this name, and older ones of any kind in our own folders."""
        own = re.escape(self.name)
        remove_leftovers(lora_dir, rf"{own}(-\d{{6}}|-step\d{{8}})?\.safetensors")
        for folder in (self.path, self.state.parent, self.samples):
            remove_leftovers(folder, r"run\.json|log\.jsonl|learned\.jsonl|state\.pt|step\d{6}_\d{2}\.png")
        remove_leftovers(lora_dir, rf"{own}\.(json|png)", LONG_AGO)  # a test may be writing these just now
        for folder in (self.path, self.cache / "latents", self.cache / "captions"):
            remove_leftovers(folder, ".+", LONG_AGO)

    def _samples(self) -> list[Path]:
        return sorted(path for path in self.samples.glob("step*.png") if re.fullmatch(SAMPLE, path.name))

    def samples_until(self, step: int) -> list[tuple[int, int, Path]]:
        """The samples that the run has made so far: step, number of the prompt, file."""
        found = [(int(path.name[4:10]), int(path.name[11:13]), path) for path in self._samples()]
        return [row for row in found if row[0] <= step]

    def start_log(self, step: int) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
        """Keep the log's lines up to ``step``: a crash may have logged steps that the state doesn't know.

        Returns:
            The loss of each of these steps, and the base model's of those where it was measured.
        """
        points = [(line, *_point(line)) for line in self._log_lines()] if step else []
        kept = [row for row in points if row[1] <= step]
        write_text(self.log, "".join(row[0] + "\n" for row in kept))
        losses = [(int(at), loss) for _, at, loss, _ in kept if math.isfinite(loss)]
        return losses, [(int(at), base) for _, at, _, base in kept if math.isfinite(base)]

    def append_log(self, done: StepDone) -> None:
        """Add one line for a step. A line that can't be written is left out: the run is worth more."""
        self._append(self.log, asdict(done))

    def _append(self, path: Path, values: dict[str, Any]) -> None:
        line = json.dumps({name: _finite(value) for name, value in values.items()})
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            log.warning("Step %d isn't in %s: %s", values["step"], path, error.strerror)

    def append_learned(self, learned: Learned) -> None:
        """Add one line for a save that was measured."""
        self._append(self.learned, asdict(learned))

    def learned_until(self, step: int) -> tuple[Learned, ...]:
        """Keep the lines of the saves up to ``step``, and return them."""
        kept = [found for found in read_learned(self.learned) if found.step <= step] if step else []
        if kept or self.learned.is_file():
            write_text(self.learned, "".join(json.dumps(asdict(found)) + "\n" for found in kept))
        return tuple(kept)

    def last_step(self) -> int | None:
        """The last step that was logged."""
        steps = [step for step, _, _ in map(_point, self._log_lines()) if math.isfinite(step)]
        return int(steps[-1]) if steps else None

    def planned_steps(self) -> int:
        """How many steps the run was to have; 0 if that isn't known."""
        steps = self._recorded().get("steps")
        return steps if isinstance(steps, int) else 0

    def began(self) -> str:
        """When the run was begun or last continued, in UTC; empty if that isn't known."""
        began = self._recorded().get("began")
        return began if isinstance(began, str) else ""

    def sessions(self) -> set[str] | None:
        """The sessions that the run's LoRA files name; None where version 0.1 began it, which didn't record them."""
        facts = self._recorded()
        sessions = facts.get("sessions")
        return None if facts and sessions is None else {str(one) for one in sessions or []}

    def read_run(self) -> dict[str, Any]:
        """What :meth:`write_run` recorded.

        Raises:
            FileError: if it isn't there or is damaged.
        """
        return read_object(self.run)

    def write_run(self, facts: dict[str, Any]) -> None:
        """Record the full configuration, versions, seeds and the base model."""
        write_json(self.run, facts)

    def _recorded(self) -> dict[str, Any]:
        """What :meth:`write_run` recorded, as far as it can be read."""
        try:
            return read_object(self.run)
        except FileError:
            return {}

    def _log_lines(self) -> list[str]:
        """The log; a byte that is no text spoils its own line only."""
        return self.log.read_text(encoding="utf-8", errors="replace").splitlines() if self.log.is_file() else []


def previous(state: Path) -> Path:
    """Where the state before this one is kept."""
    return state.with_name("previous.pt")


def _point(line: str) -> tuple[float, float, float]:
    """Step, loss and baseline of a log line; the step is infinite if a crash or a bad disk spoilt the line."""
    try:
        values = parse_json(line, "a line")
        step, loss, base = float(values["step"]), values["loss"], values.get("baseline")
        # a loss that wasn't finite is null
        return abs(step), math.nan if loss is None else float(loss), math.nan if base is None else float(base)
    except (FileError, ValueError, KeyError, TypeError, OverflowError, AttributeError):
        return math.inf, math.nan, math.nan


def _finite(value: Any) -> Any:
    """JSON has no infinity; the gradient norm of an fp16 step that overflowed is one."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_learned(path: Path) -> Iterator[Learned]:
    """What was measured at the saves."""
    for values in read_lines(path):
        with suppress(TypeError, ValueError, KeyError, OverflowError):
            gain, held_out = (_three(found) if (found := values.get(name)) else None for name in ("gain", "held_out"))
            yield Learned(int(values["step"]), int(values["epoch"]), gain, _three(values["drift"]), held_out)


def _three(values: list[Any]) -> tuple[float, float, float]:
    value, low, high = map(float, values)
    return value, low, high
