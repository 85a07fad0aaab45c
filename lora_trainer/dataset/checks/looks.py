"""What was seen of each image file, remembered by its content: a second check doesn't decode it again."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lora_trainer.dataset.buckets import Size
from lora_trainer.dataset.checks import likeness, measures, outliers, variety
from lora_trainer.dataset.checks.marks import common, marks
from lora_trainer.dataset.checks.measures import Borders, Exposure
from lora_trainer.dataset.decode import read_small
from lora_trainer.dataset.subject import FINE, Box, find_subject
from lora_trainer.errors import DatasetError

T = TypeVar("T")
log = logging.getLogger(__name__)

FILE = "checks.sqlite"  # in the output folder
VERSION = 5  # of the measures: another one and nothing that is remembered counts
PATIENCE = 5.0  # seconds for another process that writes there
TABLES = """
CREATE TABLE files (path BLOB PRIMARY KEY, bytes INTEGER, changed INTEGER, content TEXT);
CREATE TABLE looks (content TEXT, area INTEGER, facts TEXT, thumbnail BLOB, marks BLOB, PRIMARY KEY (content, area));
CREATE TABLE groups (contents TEXT PRIMARY KEY, found TEXT);
CREATE TABLE subjects (content TEXT PRIMARY KEY, box TEXT);
"""
KEPT = {"files": 20_000, "looks": 20_000, "groups": 100, "subjects": 20_000}  # rows: the oldest others are forgotten


@dataclass(frozen=True)
class Look:
    """Measures of one image, as :mod:`lora_trainer.dataset.checks.measures` has them."""

    content: str  # hash of the file's bytes
    size: Size  # (width, height) after EXIF rotation
    blur: float
    exposure: Exposure
    borders: Borders
    two_toned: float
    jpeg_quality: int | None
    thumbnail: bytes  # of :mod:`lora_trainer.dataset.checks.likeness`
    marks: bytes  # of :mod:`lora_trainer.dataset.checks.marks`


class Looks:
    """Looks at images, each content once; usable from several threads. What can't be remembered is looked at again."""

    def __init__(self, file: Path | None, resolution: Size) -> None:
        """Args:
        file: remembers from one program to the next; None forgets.
        resolution: (width, height) in px of training: images are measured at its area, as they are trained.
        """
        self._area = resolution[0] * resolution[1]
        self._lock = threading.Lock()
        self._seen: dict[Path, Look] = {}
        self._memory = _opened(file)

    def size(self, path: Path, file_size: int, changed_ns: int) -> Size:
        """The size of an image that is whole, as :func:`lora_trainer.dataset.decode.probe` gives it.

        Raises:
            DatasetError: the end of a sentence that begins with the file's name.
        """
        if file_size == 0:
            raise DatasetError("is an empty file; copy it again or delete it.")
        content = self._content(path, file_size, changed_ns)
        look = self._remembered(content)
        if look is None:
            look = take_look(path, content, self._area)
            facts = {name: getattr(look, name) for name in ("size", "blur", "exposure", "borders", "two_toned",
                                                            "jpeg_quality")}  # fmt: skip
            self._write("INSERT OR REPLACE INTO looks VALUES (?, ?, ?, ?, ?)",
                        (content, self._area, json.dumps(facts), look.thumbnail, look.marks))  # fmt: skip
        self._seen[path] = look
        return look.size

    def of(self, path: Path) -> Look:
        """What was seen of an image whose size was asked for."""
        return self._seen[path]

    def subject(self, path: Path) -> Box:
        """Where the subject of an image that was looked at probably is; found out when it is asked for."""
        content = self._seen[path].content
        found = self._recall("SELECT box FROM subjects WHERE content = ?", (content,), lambda row: _box(_list(row[0])))
        if found is not None:
            return found
        _, picture, _ = read_small(path, FINE * FINE)
        box = find_subject(picture)
        self._write("INSERT OR REPLACE INTO subjects VALUES (?, ?)", (content, json.dumps(box)))
        return box

    def twins(self, contents: Sequence[str], thumbnails: Sequence[bytes], least: float) -> list[list[int]]:
        """As :func:`lora_trainer.dataset.checks.likeness.alike`; remembered for the same pictures."""
        return self._of_all(
            [str(least), *contents],
            lambda: likeness.alike(thumbnails, least),
            lambda found: [[range(len(contents))[number] for number in group] for group in found],
        )

    def oddness(self, contents: Sequence[str], thumbnails: Sequence[bytes]) -> list[float]:
        """As :func:`lora_trainer.dataset.checks.outliers.oddness`; remembered for the same pictures."""
        return self._of_each("odd", contents, lambda: outliers.oddness(thumbnails))

    def backgrounds(self, contents: Sequence[str], thumbnails: Sequence[bytes]) -> list[float]:
        """As :func:`lora_trainer.dataset.checks.variety.apart_from_usual`; remembered for the same pictures."""
        return self._of_each("rim", contents, lambda: variety.apart_from_usual(thumbnails))

    def marks(self, contents: Sequence[str], packed: Sequence[bytes]) -> tuple[Box | None, list[float]]:
        """As :func:`lora_trainer.dataset.checks.marks.common`; remembered for the same pictures."""
        return self._of_all(
            ["marks", *contents],
            lambda: common(packed),
            lambda found: (_box(found[0]) if found[0] else None, _numbers(found[1], len(contents))),
        )

    def _of_each(self, what: str, contents: Sequence[str], find: Callable[[], list[float]]) -> list[float]:
        """As :meth:`_of_all`, a number of each picture."""
        return self._of_all([what, *contents], find, lambda found: _numbers(found, len(contents)))

    def _of_all(self, parts: Sequence[str], find: Callable[[], T], understood: Callable[[Any], T]) -> T:
        """What is found of pictures together; ``understood`` makes it of its JSON."""
        key = hashlib.blake2b("".join(parts).encode()).hexdigest()
        query = "SELECT found FROM groups WHERE contents = ?"
        remembered = self._recall(query, (key,), lambda row: understood(_list(row[0])))
        if remembered is not None:
            return remembered
        found = find()
        self._write("INSERT OR REPLACE INTO groups VALUES (?, ?)", (key, json.dumps(found)))
        return found

    def __enter__(self) -> Looks:
        return self

    def __exit__(self, *error: object) -> None:
        """Keep what was seen, and not more and more of it."""
        with self._lock, suppress(sqlite3.Error):
            for table, rows in KEPT.items():
                oldest = f"(SELECT max(rowid) FROM {table}) - ?"
                self._memory.execute(f"DELETE FROM {table} WHERE rowid <= {oldest}", (rows + len(self._seen),))
            self._memory.commit()
            self._memory.close()

    def _content(self, path: Path, file_size: int, changed_ns: int) -> str:
        key = os.fsencode(path.absolute())
        query = "SELECT content FROM files WHERE path = ? AND bytes = ? AND changed = ?"
        remembered = self._recall(query, (key, file_size, changed_ns), lambda row: str(row[0]))
        if remembered is not None:
            return remembered
        digest = hashlib.blake2b(digest_size=20)
        try:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise DatasetError(f"can't be read ({error.strerror}); check its permissions.") from error
        content = digest.hexdigest()
        self._write("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", (key, file_size, changed_ns, content))
        return content

    def _remembered(self, content: str) -> Look | None:
        query = "SELECT facts, thumbnail, marks FROM looks WHERE content = ? AND area = ?"
        return self._recall(query, (content, self._area), lambda row: _look(content, *row))

    def _recall(self, query: str, values: tuple[Any, ...], understood: Callable[[tuple[Any, ...]], T]) -> T | None:
        """What a row says; None where there is none, or none that says anything."""
        with self._lock, suppress(sqlite3.Error, ValueError, TypeError, LookupError):
            row = self._memory.execute(query, values).fetchone()
            return None if row is None else understood(row)
        return None

    def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        with self._lock, suppress(sqlite3.Error):
            self._memory.execute(statement, values)


def _look(content: str, facts: str, thumbnail: bytes, marks: bytes) -> Look:
    seen = json.loads(facts)
    width, height = map(int, seen["size"])
    return Look(
        content, (width, height), float(seen["blur"]), Exposure(*map(float, seen["exposure"])),
        Borders(*map(float, seen["borders"])),
        float(seen["two_toned"]), seen["jpeg_quality"], thumbnail, marks,
    )  # fmt: skip


def _list(text: str) -> list[Any]:
    found = json.loads(text)
    if not isinstance(found, list):
        raise TypeError(f"{type(found).__name__}, not a list")
    return found


def _numbers(found: Any, count: int) -> list[float]:
    numbers = list(map(float, found))
    if len(numbers) != count:
        raise ValueError(f"{len(numbers)} numbers of {count} pictures")
    return numbers


def _box(found: Any) -> Box:
    left, top, right, bottom = map(float, found)
    return (left, top, right, bottom)


def take_look(path: Path, content: str, area: int) -> Look:
    """Decode an image and measure it.

    Raises:
        DatasetError: the end of a sentence that begins with the file's name.
    """
    size, picture, tables = read_small(path, area)
    without_colour = picture.convert("L")
    colour, grey = np.asarray(picture), np.asarray(without_colour)
    tiny = min(picture.size) < 2 * measures.TILES  # no room for tiles
    return Look(
        content=content,
        size=size,
        blur=0.0 if tiny else measures.blur(grey),
        exposure=measures.exposure(colour, grey),
        borders=Borders(0, 0, 0, 0) if tiny else measures.borders(colour),
        two_toned=measures.two_toned(grey),
        jpeg_quality=measures.jpeg_quality(tables),
        thumbnail=likeness.thumbnail(picture),
        marks=marks(without_colour),
    )


def _opened(file: Path | None) -> sqlite3.Connection:
    """The file's memory; one that ends with the program where there is none that can be used."""
    if file is not None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            return _connected(file)
        except (OSError, sqlite3.OperationalError) as error:
            log.info("%s can't be used: %s", file, error)
        except sqlite3.DatabaseError as error:
            log.info("%s is made anew: %s", file, error)
            with suppress(OSError, sqlite3.Error):
                file.unlink()  # only ours, and only what is seen again
                return _connected(file)
    return _connected(":memory:")


def _connected(file: Path | str) -> sqlite3.Connection:
    return _tables(sqlite3.connect(file, timeout=PATIENCE, check_same_thread=False))


def _tables(memory: sqlite3.Connection) -> sqlite3.Connection:
    memory.execute("PRAGMA synchronous = OFF")  # what a crash loses is seen again
    if memory.execute("PRAGMA user_version").fetchone()[0] != VERSION:
        for table in KEPT:
            memory.execute(f"DROP TABLE IF EXISTS {table}")
        memory.executescript(f"{TABLES} PRAGMA user_version = {VERSION};")
    return memory
