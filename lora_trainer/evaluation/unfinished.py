"""What a test has done so far, in ``test.jsonl`` of the run's folder: one that didn't come to its end can be continued.

The first line says what it was of and how it was asked for; each other one is something that is done. The file is gone
when the test has come to its end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_trainer import __version__
from lora_trainer.errors import ConfigError, FileError
from lora_trainer.evaluation.events import TestedImage, TestPlanned
from lora_trainer.evaluation.examine import Findings
from lora_trainer.evaluation.looking import Look
from lora_trainer.evaluation.measuring import Cell
from lora_trainer.files import file_sha256, read_lines
from lora_trainer.measures.interval import Estimate
from lora_trainer.measures.weights import Health
from lora_trainer.training.folder import UNFINISHED_TEST

if TYPE_CHECKING:
    from PIL.Image import Image

    from lora_trainer.evaluation.cost import Depth
    from lora_trainer.evaluation.plan import TestPlan
    from lora_trainer.hosts.base import ModelInfo

PARTS = {"files": "the LoRA or one of its saved files", "model": "the base model", "plan": "what it tests",
         "version": "the extension's version"}  # fmt: skip


def asked_before(folder: Path) -> dict[str, Any]:
    """The values that an unfinished test was asked for with.

    Raises:
        FileError: if there is none.
    """
    first = next(read_lines(folder / UNFINISHED_TEST), {})
    if not isinstance(first.get("asked"), dict):
        raise FileError(f"There is no unfinished test of {folder.name} to be continued; begin a new one.")
    return dict(first["asked"])


def about(files: Sequence[Path], info: ModelInfo, plan: TestPlan, depth: Depth) -> dict[str, Any]:
    """What must still be the same for a test to be continued; plain JSON values."""
    model = [info.checkpoint, info.checkpoint_sha256, info.vae_fingerprint, info.text_fingerprint]
    settings = [asdict(replace(plan, asked={})), asdict(depth)]
    found = {
        "files": {path.name: file_sha256(path) for path in files}, "model": model, "plan": settings,
        "version": __version__,
    }  # fmt: skip
    return json.loads(json.dumps(found, default=str))  # type: ignore[no-any-return]


class Unfinished:
    """The file of one test."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / UNFINISHED_TEST
        self._first: dict[str, Any] = {}  # line, until it is written
        self.measured = False  # whether nothing is left but pictures
        self._pictures: dict[str, tuple[str, str]] = {}  # prompt and infotext by stem
        self._kept: set[tuple[str, str, float]] = set()

    def begin(self, same: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
        """A new test, whatever was there before; the file comes with the first thing that is done."""
        self.end()
        self._first = {"about": same, "asked": asked}

    def load(self, same: Mapping[str, Any], found: Findings) -> None:
        """Take up what is done; ``found`` gets what was measured.

        Raises:
            FileError: if there is nothing to be continued.
            ConfigError: names what has changed since.
        """
        asked_before(self.folder)
        first, *rest = read_lines(self.path)
        before = first.get("about")
        other = [text for part, text in PARTS.items() if not isinstance(before, dict) or before.get(part) != same[part]]
        if other:
            raise ConfigError(
                f"The test of {self.folder.name} can't be continued: {other[0]} has changed since. Begin a new one."
            )
        for line in rest:
            with suppress(KeyError, TypeError, ValueError, AttributeError):  # a line that a crash has spoilt
                self._take(line, found)

    def picture(self, stem: str) -> tuple[Image, str, str] | None:
        """A picture that is there already, with its prompt and infotext."""
        from PIL import Image

        if stem not in self._pictures:
            return None
        try:
            with Image.open(self.folder / "images" / f"{stem}.png") as image:
                return image.copy(), *self._pictures[stem]
        except (OSError, ValueError):  # gone, or spoilt: it is made anew
            return None

    def share(self, planned: TestPlanned) -> float:
        """How much of the test is done, 0…1; measuring counts when all of it is."""
        measuring = 1 - planned.images / max(planned.work, 1)
        if measuring and not self.measured:
            return 0.0
        return measuring + (1 - measuring) * min(len(self._pictures) / max(planned.images, 1), 1.0)

    def keep(self, found: Findings) -> None:
        """Write down what was measured since the last call."""
        for kind, values in (("cell", found.cells), ("look", found.looks)):
            for (file, strength), value in values.items():
                if (kind, file, strength) not in self._kept:
                    self._kept.add((kind, file, strength))
                    self._append({kind: {**asdict(value), "file": file, "strength": strength}})

    def keep_all(self, found: Findings) -> None:
        """All is measured."""
        self.keep(found)
        health = {file: asdict(one) for file, one in found.health.items()}
        self._append({"measured": {"health": health, "missing": found.missing}})

    def keep_picture(self, image: TestedImage) -> None:
        """Write down that it is made."""
        stem = image.shot.stem
        if stem not in self._pictures:
            self._pictures[stem] = (image.prompt, image.infotext)
            self._append({"picture": {"stem": stem, "prompt": image.prompt, "infotext": image.infotext}})

    def end(self) -> None:
        """Nothing is left to be continued."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _append(self, values: Mapping[str, Any]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                for line in filter(None, (self._first, values)):
                    file.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
            self._first = {}
        except OSError as error:
            raise FileError(f"{self.path} can't be written ({error.strerror}); free space on the disk.") from error

    def _take(self, line: Mapping[str, Any], found: Findings) -> None:
        if "cell" in line:
            values = dict(line["cell"])
            for name in ("drift", "harm", "gain"):
                values[name] = _estimate(values[name])
            cell = Cell(**{**values, "bins": tuple(map(float, values["bins"]))})
            found.cells[cell.file, cell.strength] = cell
            self._kept.add(("cell", cell.file, cell.strength))
        elif "look" in line:
            values = dict(line["look"])
            key = str(values.pop("file")), float(values.pop("strength"))
            found.looks[key] = Look(**{**values, "likeness": _estimate(values["likeness"])})
            self._kept.add(("look", *key))
        elif "picture" in line:
            made = line["picture"]
            self._pictures[str(made["stem"])] = (str(made["prompt"]), str(made["infotext"]))
        elif "measured" in line:
            done = line["measured"]
            health = {file: Health(**{**one, "dead": tuple(one["dead"])}) for file, one in done["health"].items()}
            found.health.update(health)
            found.missing.extend(map(str, done["missing"]))
            self.measured = True


def _estimate(values: Mapping[str, Any] | None) -> Estimate | None:
    return None if values is None else Estimate(*(float(values[name]) for name in ("value", "low", "high")))
