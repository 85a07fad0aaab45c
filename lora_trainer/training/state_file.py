"""The file of a resume state: written whole or not at all, checksummed, the one before it kept."""

from __future__ import annotations

import hashlib
import os
import struct
import threading
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import torch

from lora_trainer.errors import FileError
from lora_trainer.files import replaced
from lora_trainer.training.folder import previous

SEAL = b"sha256:"


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write a state; the one that was there stays, as the previous one, unless the disk has no room for both.

    Raises:
        FileError: in one sentence; what was there stays.
    """
    try:
        _write(path, state)
    except FileError:
        if not previous(path).is_file():
            raise
        previous(path).unlink(missing_ok=True)  # the room for it may be what the new one needs
        _write(path, state)


def read_state(path: Path) -> dict[str, Any]:
    """What a state file holds; nothing in it is run."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def intact_states(path: Path) -> list[Path]:
    """The states that can be read, the newest first.

    Raises:
        FileError: if there is none.
    """
    there = [one for one in (path, previous(path)) if one.is_file()]
    if not there:
        raise FileError(f"There is nothing to resume: {path} doesn't exist. Start without resuming.")
    found = [one for one in there if is_intact(one)]
    if not found:
        raise damaged(path)
    return found


def damaged(path: Path, why: str = "") -> FileError:
    """The error for a state that can't be read."""
    return FileError(f"The state {path} is damaged{f' ({why})' if why else ''}; start without resuming.")


def is_intact(path: Path) -> bool:
    """Whether every byte is as it was written. torch itself accepts a state with a flipped bit."""
    try:
        with path.open("rb") as file:
            size = len(SEAL) + 64
            file.seek(-size - 2, os.SEEK_END)
            end, length, tail = file.tell(), file.read(2), file.read()
            if tail.startswith(SEAL):
                return length == size.to_bytes(2, "little") and tail[len(SEAL) :] == _sha256(file, end).encode()
        with zipfile.ZipFile(path) as archive:  # version 0.1 wrote no checksum, but an archive has some
            return archive.testzip() is None
    except (OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error, struct.error):
        return False


class StateWriter:
    """Writes states in a thread of its own, one after the other, so that no step waits for the disk.

    A state is three times a LoRA in fp32: 78 MB for SD 1.5 and 504 MB for SDXL at rank 16.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread: threading.Thread | None = None
        self._problem: Exception | None = None

    def write(self, state: dict[str, Any]) -> None:
        """Begin to write a state that nobody changes any more; waits for the one before.

        Raises:
            Exception: what kept the one before from being written.
        """
        self.wait()
        self._thread = threading.Thread(target=self._write, args=(state,), name="lora-trainer-state")
        self._thread.start()

    def wait(self) -> None:
        """Until the state is written.

        Raises:
            Exception: what kept it from being written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        problem, self._problem = self._problem, None
        if problem is not None:
            raise problem

    def settle(self) -> None:
        """Until nothing is written any more; what kept it from being written is of no interest now."""
        with suppress(Exception):
            self.wait()

    def _write(self, state: dict[str, Any]) -> None:
        try:
            write_state(self.path, state)
        except Exception as error:  # told by whoever waits
            self._problem = error


def _write(path: Path, state: dict[str, Any]) -> None:
    with replaced(path) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:  # its word for a disk that is full
            raise OSError(str(error).splitlines()[0]) from error
        _seal(temporary)
        if path.is_file():
            path.replace(previous(path))


def _seal(path: Path) -> None:
    """Put the checksum of a zip archive, which a state is, into the archive's comment, where readers don't mind it."""
    with path.open("r+b") as file:
        file.seek(-2, os.SEEK_END)  # the length of the comment, which ends the archive
        length = file.tell()
        if file.read() != bytes(2):
            return  # not as we know it; it is still read, with the archive's own checks
        comment = SEAL + _sha256(file, length).encode()
        file.seek(length)
        file.write(len(comment).to_bytes(2, "little") + comment)
        file.flush()
        os.fsync(file.fileno())


def _sha256(file: IO[bytes], end: int) -> str:
    """The checksum of a file up to ``end``."""
    found = hashlib.sha256()
    file.seek(0)
    while block := file.read(min(1 << 20, end - file.tell())):
        found.update(block)
    return found.hexdigest()
