"""All runs of an output folder, read from what they left there.

A folder may be damaged, half deleted or somebody else's: whatever is in it, it makes no error, only an entry that knows
less. Of a log only the end is read, and nothing is read twice that hasn't changed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lora_trainer.errors import FileError, quoted
from lora_trainer.runs.entry import ENDED, RunEntry, State
from lora_trainer.runs.left import Left, Stamps, count, read, stamps, text
from lora_trainer.training.folder import SHARED_NAMES, RunFolder
from lora_trainer.training.lock import in_use

VERDICTS = ("undertrained", "good", "overtrained", "unstable", "not enough evidence")


def list_runs(output: Path, lora_dir: Path | None = None) -> list[RunEntry]:
    """All runs, the newest first, before them those in progress.

    Args:
        lora_dir: where the LoRA files are; None for where each run says that it wrote its own.
    """
    return RunList(output, lora_dir).entries()


class RunList:
    """The runs of one output folder, for somebody who asks again and again."""

    def __init__(self, output: Path, lora_dir: Path | None = None) -> None:
        self.output, self.lora_dir = output, lora_dir
        self._read: dict[str, tuple[Stamps, Left]] = {}
        self._lock = threading.Lock()

    def entries(self) -> list[RunEntry]:
        """See :func:`list_runs`."""
        loras = _Loras()
        with self._lock:
            found = [entry for name in _folders(self.output) if (entry := self._entry(name, loras)) is not None]
            self._read = {entry.name: self._read[entry.name] for entry in found}
        return sorted(found, key=lambda entry: (entry.state != "running", -entry.when, entry.name))

    def entry(self, name: str) -> RunEntry:
        """The run of that name.

        Raises:
            FileError: if there is none.
        """
        with self._lock:
            found = self._entry(name, _Loras()) if name in _folders(self.output) else None
        if found is None:
            raise FileError(f"There is no run named {quoted(name)} in {self.output}; the list of runs has their names.")
        return found

    def _entry(self, name: str, loras: _Loras) -> RunEntry | None:
        folder = RunFolder(self.output, name)
        running = in_use(folder.lock)  # asked first: a run writes down its end before it gives the lock back
        there = stamps(folder)
        if not any(there[:-1]):  # a folder of samples alone is no run
            return None
        known = self._read.get(name)
        left = known[1] if known is not None and known[0] == there else read(folder, there)
        self._read[name] = (there, left)
        place = self.lora_dir or Path(text(left.facts.get("lora_dir")) or self.output / "lora")
        return _told(folder, left, loras.find(place, name), running)


def _folders(output: Path) -> list[str]:
    """The names that runs can have; links lead elsewhere, and nothing is served or deleted there."""
    try:
        with os.scandir(output) as found:
            return [
                row.name
                for row in found
                if row.name not in SHARED_NAMES and not row.name.startswith(".") and _is_folder(row)
            ]
    except OSError:
        return []


def _is_folder(row: os.DirEntry[str]) -> bool:
    try:
        return row.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _told(folder: RunFolder, left: Left, lora: Path | None, running: bool) -> RunEntry:
    facts = left.facts
    model = facts.get("base_model")
    steps = count(facts.get("steps"))
    step = max(left.step, count(left.end.get("step")))
    state = "running" if running else _state(left, steps > 0 and step >= steps, lora is not None)
    resumable = state in ("interrupted", "stopped", "failed") and folder.has_state and is_settings(facts)
    page = folder.path / "report.html"
    return RunEntry(
        name=folder.name,
        state=state,
        step=step,
        steps=steps,
        when=left.when,
        why=text(left.end.get("why")) if state == "failed" else "",
        verdict=verdict if (verdict := left.report.get("verdict")) in VERDICTS else "",
        preview=left.preview,
        dataset=text(facts.get("dataset")),
        trigger=text(facts.get("trigger")) or text(left.report.get("trigger")),
        checkpoint=text(model.get("name")) if isinstance(model, dict) else text(left.report.get("base_model")),
        resumable=resumable,
        offered=resumable and state == "interrupted" and facts.get("forgotten") is not True,
        lora=lora,
        report=page if page.is_file() else None,
        half_tested=folder.test.is_file(),
        warnings=left.warnings,
    )


def is_settings(facts: dict[str, Any]) -> bool:
    """Whether a run.json says with what the run was started."""
    return isinstance(facts.get("config"), dict) and bool(text(facts.get("dataset")))


def _state(left: Left, all_steps: bool, lora_there: bool) -> State:
    if left.end.get("state") in ENDED:
        return left.end["state"]  # type: ignore[no-any-return]
    if left.facts and "end" not in left.facts:  # version 0.1, which didn't write down how a run ended
        return "done" if all_steps else "stopped"
    return "done" if left.tested_only or (all_steps and lora_there) else "interrupted"


class _Loras:
    """The LoRA files, looked for as the WebUI does: by name, also in folders below; those are walked at most once."""

    def __init__(self) -> None:
        self._below: dict[Path, dict[str, Path]] = {}

    def find(self, folder: Path, name: str) -> Path | None:
        direct = folder / f"{name}.safetensors"
        if direct.is_file():
            return direct
        if folder not in self._below:
            self._below[folder] = {path.stem: path for path in _safetensors(folder)}
        return self._below[folder].get(name)


def _safetensors(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        yield from (Path(root, name) for name in names if name.endswith(".safetensors"))
