"""What a run left in its folder, whatever state that is in."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_trainer.errors import FileError, shortened, shown
from lora_trainer.files import parse_json, read_object
from lora_trainer.training.folder import SAMPLE, RunFolder, previous

TAIL = 8192  # bytes of a log: some twenty steps

Stamps = tuple[tuple[int, int] | None, ...]  # time of change and size of each file; the last is the samples' folder


@dataclass(frozen=True)
class Left:
    """What a run's folder holds."""

    facts: dict[str, Any]  # of run.json
    report: dict[str, Any]
    step: int
    when: float
    preview: Path | None
    tested_only: bool  # a LoRA of elsewhere
    warnings: tuple[str, ...] = ()

    @property
    def end(self) -> dict[str, Any]:
        """How it ended, as far as it could write that down."""
        end = self.facts.get("end")
        return end if isinstance(end, dict) else {}


def _files(folder: RunFolder) -> tuple[Path, ...]:
    states = folder.state, previous(folder.state)
    return folder.run, folder.log, folder.path / "report.json", *states, folder.samples


def stamps(folder: RunFolder) -> Stamps:
    """What tells whether anything of a run has changed."""
    return tuple(map(_stamp, _files(folder)))


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size


def read(folder: RunFolder, there: Stamps) -> Left:
    """Read what there is; ``there`` is what :func:`stamps` gave."""
    run, log, tested, *states, _ = there
    facts: dict[str, Any] = {}
    report: dict[str, Any] = {}
    warnings: list[str] = []
    if run is not None:
        try:
            facts = folder.read_run()
        except FileError as error:
            warnings.append(f"{shortened(str(error))} Its settings aren't known, so it can't be continued.")
    elif log or any(states):
        warnings.append("run.json is missing: its settings aren't known, so it can't be continued.")
    if tested is not None:
        try:
            report = read_object(folder.path / "report.json")
        except FileError as error:
            warnings.append(f"{shortened(str(error))} Test it again to have a report.")
    changed = [stamp[0] for stamp in (run, log, tested, *states) if stamp is not None]
    return Left(
        facts, report,
        step=_last_step(folder.log) if log else 0,
        when=max(changed) / 1e9,
        preview=_preview(folder, report),
        tested_only=run is None and log is None and not any(states),
        warnings=tuple(warnings),
    )  # fmt: skip


def _last_step(log: Path) -> int:
    """The step of the last line that can be read; 0 if none can."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return 0
    for line in reversed(lines):
        try:
            row = parse_json(line, "a line")
        except FileError:
            continue
        if isinstance(row, dict) and (step := count(row.get("step"))):
            return step
    return 0


def _preview(folder: RunFolder, report: dict[str, Any]) -> Path | None:
    """The newest sample image; else the test's at the strength that it recommends, or nearest to it."""
    try:
        with os.scandir(folder.samples) as found:
            names = [row.name for row in found if re.fullmatch(SAMPLE, row.name) and row.is_file(follow_symlinks=False)]
    except OSError:
        names = []
    if names:
        newest = max(name[:10] for name in names)
        return folder.samples / min(name for name in names if name.startswith(newest))
    return _tested_image(folder, report)


def _tested_image(folder: RunFolder, report: dict[str, Any]) -> Path | None:
    recommended, images = report.get("recommended"), report.get("images")
    wanted = number(recommended.get("strength")) if isinstance(recommended, dict) else 0.0
    rows = [row for row in images if isinstance(row, dict)] if isinstance(images, list) else []
    rows = [row for row in rows if row.get("kind") == "strength" and isinstance(row.get("path"), str)]
    if not rows:
        return None
    best = min(rows, key=lambda row: abs(number(row.get("strength")) - wanted))
    path = folder.path / best["path"]
    try:
        inside = path.resolve().is_relative_to(folder.path.resolve())
        return path if inside and path.is_file() else None
    except (OSError, ValueError, RuntimeError):
        return None


def text(value: Any) -> str:
    """A text out of a file that may hold anything; else an empty one."""
    return shown(value) if isinstance(value, str) else ""


def count(value: Any) -> int:
    """A number of steps; else 0."""
    return value if type(value) is int and 0 <= value < 2**53 else 0


def number(value: Any) -> float:
    """A finite number; else 0."""
    return float(value) if type(value) in (int, float) and math.isfinite(value) and abs(value) < 1e9 else 0.0
