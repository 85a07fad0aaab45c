"""Changes of a dataset's files that can be undone: files move, captions are rewritten, copies are cropped; nothing is
deleted. A journal in the output folder says what was done; it is written before anything is touched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_trainer.config import DatasetConfig
from lora_trainer.dataset.crops import crop, crop_of, uncrop
from lora_trainer.dataset.layout import SET_ASIDE
from lora_trainer.dataset.subject import Box
from lora_trainer.dataset.undo import Entries, coded, coded_path, decoded, decoded_path, put_back
from lora_trainer.errors import DatasetError, FileError, shown
from lora_trainer.files import read_object

FOLDER = "remedies"  # in the output folder


@dataclass(frozen=True)
class Move:
    """A file or folder that gets another place or name."""

    old: Path
    new: Path

    def __str__(self) -> str:
        folder = "" if self.new.parent == self.old.parent else f"{self.new.parent.name}/"
        return f"{self.old.name} → {folder}{self.new.name}"

    def do(self) -> None:
        self.new.parent.mkdir(parents=True, exist_ok=True)
        self.old.rename(self.new)

    def undo(self) -> None:
        if self.new.exists() and not self.old.exists():
            self.new.rename(self.old)

    def problem(self) -> str:
        """Why it can't be undone; "" where it can, or never was done."""
        if self.new.exists() and self.old.exists():
            return f"{self.old.name} is there again"
        return "" if self.new.exists() or self.old.exists() else f"{self.new.name} isn't there any more"


@dataclass(frozen=True)
class Write:
    """A caption file with another text."""

    file: Path
    old: bytes | None  # None: there was no file
    new: bytes

    def __str__(self) -> str:
        return f"{self.file.name}: {self.new.decode().strip()}"

    def do(self) -> None:
        put_back(self.file, self.new)

    def undo(self) -> None:
        put_back(self.file, self.old)

    def problem(self) -> str:
        """As of a move."""
        now = self.file.read_bytes() if self.file.exists() else None
        return "" if now in (self.old, self.new) else f"{self.file.name} was changed meanwhile"


@dataclass(frozen=True)
class Cut:
    """A copy that is cropped."""

    image: Path
    box: Box

    def __str__(self) -> str:
        return f"{self.image.name}: cropped"

    def do(self) -> None:
        crop(self.image, self.box, DatasetConfig())

    def undo(self) -> None:
        if (image := self._now()) is not None and crop_of(image) == self.box:
            uncrop(image)

    def problem(self) -> str:
        """As of a move."""
        return "" if self._now() is not None else f"{self.image.name} isn't there any more"

    def _now(self) -> Path | None:
        return next((path for path in (self.image.with_suffix(".png"), self.image) if path.exists()), None)


Change = Move | Write | Cut


class Journal:
    """What was changed in one dataset, and the way back."""

    def __init__(self, dataset: Path, output: Path) -> None:
        """Args:
        dataset: a folder, or a dataset file.
        output: the folder that keeps the journal.
        """
        whole = dataset.expanduser().resolve()
        self.dataset = whole if whole.is_dir() else whole.parent
        self._entries = Entries(output, FOLDER, self.dataset)

    def apply(self, changes: Sequence[Change], what: str) -> None:
        """Do them, as one entry.

        Raises:
            FileError: if one can't be done; those before it can be undone.
        """
        if not changes:
            return
        self._entries.write(what, {"steps": [_coded(change, self.dataset) for change in changes]})
        for change in changes:
            _tried(change, change.do, "can't be done")

    @property
    def undoable(self) -> str:
        """What :meth:`undo` would take back; "" if there is nothing."""
        return self._entries.undoable

    def undo(self) -> str:
        """Take the last entry back that wasn't taken back yet.

        Returns:
            What that was.

        Raises:
            FileError: if there is none, or it can't be; then nothing is touched.
        """
        newest = self._entries.newest
        if newest is None:
            raise FileError("There is no remedy of this dataset to take back.")
        content = read_object(newest)
        try:
            changes = [_decoded(step, self.dataset) for step in content["steps"]]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise FileError(f"{newest} is damaged; what it says can't be taken back.") from error
        problem = next((found for change in changes if (found := change.problem())), "")
        if problem:
            raise FileError(f"This can't be taken back, as {shown(problem)}; put the files back by hand.")
        for change in reversed(changes):
            _tried(change, change.undo, "can't be taken back")
        newest.unlink()
        aside = self.dataset / SET_ASIDE
        if aside.is_dir() and not any(aside.iterdir()):
            aside.rmdir()
        return str(content.get("what", ""))


def _tried(change: Change, act: Callable[[], None], failed: str) -> None:
    try:
        act()
    except OSError as error:
        raise FileError(f"{shown(change)}: this {failed} ({error.strerror}); undo what was done before it.") from error


def _coded(change: Change, root: Path) -> list[Any]:
    """As JSON; paths as seen from the dataset."""
    if isinstance(change, Move):
        return ["move", coded_path(change.old, root), coded_path(change.new, root)]
    if isinstance(change, Write):
        old = None if change.old is None else coded(change.old)
        return ["write", coded_path(change.file, root), old, coded(change.new)]
    return ["cut", coded_path(change.image, root), list(change.box)]


def _decoded(step: list[Any], root: Path) -> Change:
    kind, path = step[0], decoded_path(step[1], root)
    if kind == "move":
        return Move(path, decoded_path(step[2], root))
    if kind == "write":
        return Write(path, None if step[2] is None else decoded(step[2]), decoded(step[3]))
    if kind != "cut":
        raise DatasetError("unknown")
    left, top, right, bottom = step[2]
    return Cut(path, (left, top, right, bottom))
