"""Where changes of a dataset's files are kept, so that they can be taken back: numbered files in the output folder."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path
from typing import Any

from lora_trainer.errors import shown
from lora_trainer.files import read_object, replaced, write_json

MOST = 200  # entries of a dataset; the oldest are forgotten


class Entries:
    """The changes of one dataset, one file each; the newest is taken back first."""

    def __init__(self, output: Path, kind: str, dataset: Path) -> None:
        """Args:
        kind: of change: the folder in the output folder.
        dataset: its folder, or a dataset file, resolved.
        """
        self.dataset = dataset
        self.folder = output / kind / hashlib.sha256(os.fsencode(dataset)).hexdigest()[:16]

    @property
    def newest(self) -> Path | None:
        """The last one that wasn't taken back; None if there is none."""
        kept = self._kept()
        return kept[-1] if kept else None

    @property
    def undoable(self) -> str:
        """What the newest one did; "" if there is none."""
        newest = self.newest
        return str(read_object(newest).get("what", "")) if newest else ""

    def write(self, what: str, content: dict[str, Any], file: Path | None = None) -> Path:
        """Write an entry; ``file`` is one that is written anew, None for a new one."""
        kept = self._kept()
        file = file or self.folder / f"{int(kept[-1].stem) + 1 if kept else 1:06}.json"
        write_json(file, {"dataset": shown(self.dataset), "what": what, **content})
        for old in self._kept()[:-MOST]:
            old.unlink(missing_ok=True)
        return file

    def _kept(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*.json") if path.stem.isdigit())


def coded(content: bytes) -> str:
    """As base64: neither names nor captions need be text."""
    return base64.b64encode(content).decode()


def decoded(text: str) -> bytes:
    """What :func:`coded` was given."""
    return base64.b64decode(text)


def coded_path(path: Path, root: Path) -> str:
    """A path as seen from ``root``."""
    return coded(os.fsencode(os.path.relpath(path.absolute(), root)))


def decoded_path(text: str, root: Path) -> Path:
    """What :func:`coded_path` was given."""
    return Path(os.path.normpath(root / os.fsdecode(decoded(text))))


def put_back(path: Path, content: bytes | None) -> None:
    """Give a file its content; None: there was no file."""
    if content is None:
        path.unlink(missing_ok=True)
        return
    with replaced(path) as temporary:
        temporary.write_bytes(content)
