"""Deleting a run, and forgetting that it could be continued.

Only what the trainer itself writes is deleted, and nothing behind a link: whatever else is in the folder stays, and is
named.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lora_trainer.card import remove_card
from lora_trainer.errors import FileError, counted, shortened
from lora_trainer.runs.alone import alone
from lora_trainer.runs.entry import RunEntry
from lora_trainer.runs.loras import named
from lora_trainer.training.folder import REPORTS, SAMPLE, RunFolder
from lora_trainer.training.taken import session_of

OWN = {  # folder below the run's -> the names that the trainer gives there
    "": "|".join([r"run\.json", r"(log|learned|test)\.jsonl", r"events\.out\.tfevents\..+", *map(re.escape, REPORTS)]),
    "state": r".+\.pt",
    "samples": SAMPLE,
    "images": r".+_seed\d+\.png",
}
LEFTOVER = r"\..+\.[0-9a-f]{8}\.tmp|\.lock(\.\d+)?"  # of a process that was killed
MOST_NAMED = 3  # files in a sentence


@dataclass(frozen=True)
class Deleted:
    """What is gone, and what is not."""

    name: str
    files: int  # of the run
    size: int  # bytes
    loras: tuple[Path, ...]
    kept: tuple[Path, ...]  # in its folder, because they aren't the trainer's
    foreign: tuple[Path, ...]  # LoRA files of its name that it didn't write

    @property
    def sentence(self) -> str:
        """For the person who asked."""
        told = [f"{counted(self.files, 'file')} of the run {self.name} deleted ({self.size / 1e6:.1f} MB)."]
        if self.loras:
            told.append(f"Also deleted: {_listed(self.loras)}.")
        if self.foreign:
            told.append(f"{_listed(self.foreign)} stayed: nothing says that this run wrote it.")
        if self.kept:
            told.append(f"{_listed(self.kept)} stayed in its folder: the trainer didn't write it.")
        return " ".join(told)


def delete_run(output: Path, entry: RunEntry, lora_dir: Path, keep_lora: bool = True) -> Deleted:
    """Delete a run's folder and, if asked to, the LoRA files that it wrote, with their card.

    Raises:
        HostBusyError: if the run is in progress.
        FileError: if something can't be deleted; says what is gone by then.
    """
    folder = RunFolder(output, entry.name)
    if folder.path.is_symlink() or folder.path.parent.resolve() != folder.path.resolve().parent:
        raise FileError(f"{folder.path} is a link to somewhere else; remove it by hand.")
    gone: list[Path] = []
    foreign: list[Path] = []
    place = entry.lora.parent if entry.lora is not None else lora_dir
    with alone(folder, lora_dir):
        own, loras = folder.sessions() or set(), [] if keep_lora else named(place, entry.name)
        files = _own_files(folder)
        size = sum(path.lstat().st_size for path in files)
        try:
            for path in loras:
                if session_of(path) not in own:
                    foreign.append(path)
                    continue
                gone += remove_card(path) if path.stem == entry.name else []
                path.unlink()
                gone.append(path)
            for path in files:
                path.unlink()
        except OSError as error:
            left = sum(path.is_symlink() or path.exists() for path in files)
            raise FileError(
                f"{error.filename} can't be deleted ({error.strerror}); {left} of {counted(len(files), 'file')} of the "
                f"run {entry.name} are still there. Check who may write there, then delete it again."
            ) from error
    for part in [*OWN][::-1]:
        with suppress(OSError):  # it isn't empty, or isn't there
            (folder.path / part).rmdir()
    return Deleted(entry.name, len(files), size, tuple(sorted(gone)), tuple(_rest(folder.path)), tuple(foreign))


def forget_run(output: Path, name: str) -> None:
    """Don't offer to continue this run any more; it can be continued all the same.

    Raises:
        HostBusyError: if the run is in progress.
        FileError: if that can't be written down.
    """
    folder = RunFolder(output, name)
    with alone(folder):
        folder.write_run({**folder.read_run(), "forgotten": True})


def _own_files(folder: RunFolder) -> list[Path]:
    """The trainer's files, run.json last: a run that is half deleted can be deleted again."""
    found = []
    for part, names in OWN.items():
        place = folder.path / part
        if place.is_symlink() or not place.is_dir():
            continue
        found += [
            path
            for path in sorted(place.iterdir())
            if re.fullmatch(f"{names}|{LEFTOVER}", path.name)
            and path != folder.lock
            and (path.is_symlink() or not path.is_dir())
        ]
    return sorted(found, key=lambda path: path == folder.run)


def _rest(folder: Path) -> Iterator[Path]:
    """Files, and links to anything."""
    for root, folders, names in os.walk(folder):
        yield from (Path(root, name) for name in sorted(names))
        yield from (path for name in sorted(folders) if (path := Path(root, name)).is_symlink())


def _listed(paths: tuple[Path, ...]) -> str:
    rest = len(paths) - MOST_NAMED
    names = ", ".join(shortened(path.name) for path in paths[:MOST_NAMED])
    return names + (f" and {rest} more" if rest > 0 else "")
