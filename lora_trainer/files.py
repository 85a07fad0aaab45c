"""Writing files so that nobody ever sees half of one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from lora_trainer.errors import FileError


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success it takes the place of ``path``, on failure it vanishes.

    Raises:
        FileError: one sentence, if the folder can't be written or the disk is full; ``path`` is untouched then.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise FileError(_refusal(path, error.strerror or str(error))) from error
    except Exception as error:
        if type(error).__name__ == "SafetensorError":  # its word for OSError
            raise FileError(_refusal(path, str(error))) from error
        raise
    finally:
        with suppress(OSError):  # the refusal above is what counts
            temporary.unlink(missing_ok=True)


def _refusal(path: Path, reason: str) -> str:
    return f"Can't write {path}: {reason}. Free space on the disk or choose another folder."


def check_writable(folder: Path, what: str) -> None:
    """Make a folder and try to write there, so that it is found out now and not after an hour.

    Raises:
        FileError: names the folder; ``what`` says which one it is.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise FileError(f"The {what} {folder} can't be written ({error.strerror}). Choose another one.") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
