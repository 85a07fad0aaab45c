"""Writing files so that nobody ever sees half of one."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from lora_trainer.errors import FileError, quoted, shortened

FINGERPRINT_PARTS, FINGERPRINT_PART = 64, 1 << 12  # bytes of each: some milliseconds
LARGEST_JSON = 64 * 2**20  # bytes
MOST_DIGITS = 100  # of a whole number
DEEPEST = 64  # levels of lists and objects in each other
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


_PORTS = (f"{kind}{n}" for kind in ("com", "lpt") for n in "123456789¹²³")
DEVICES = frozenset({"con", "prn", "aux", "nul", "conin$", "conout$", *_PORTS})
LONGEST_NAME = 200  # bytes; a file system takes 255, of which endings, epoch numbers and temporary names need some
IMPOSSIBLE = '<>:"/\\|?*'  # in a file's name, on one system or another


def name_problem(name: str, impossible: str = IMPOSSIBLE) -> str:
    """Why a file or folder can't have a name on every system, as the end of a sentence; "" if it can."""
    bad = sorted({char for char in name if char in impossible or ord(char) < 32})
    if bad:
        return f"{' '.join(char if char.isprintable() else repr(char)[1:-1] for char in bad)} can't be used in it"
    if not name or name != name.strip(" .") or name != name.strip():
        return "it is empty, or begins or ends with a space or a dot"
    if name.partition(".")[0].strip().lower() in DEVICES:
        return "Windows reserves that name for a device"
    if len(name.encode("utf-8", "replace")) > LONGEST_NAME:
        return "it is too long"
    return ""


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success it takes the place of ``path``, on failure it vanishes.

    Raises:
        FileError: one sentence, if the folder can't be written or the disk is full; ``path`` is untouched then.
    """
    short = path.name.encode("utf-8", "surrogateescape")[:LONGEST_NAME].decode("utf-8", "surrogateescape")
    temporary = path.with_name(f".{short}.{uuid4().hex[:8]}.tmp")
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


def remove_leftovers(folder: Path, names: str, age: float = 0.0) -> None:
    """Remove the temporary files that :func:`replaced` leaves when its process is killed.

    Args:
        names: pattern of the names of the files that were to be written.
        age: seconds since they were last written to; younger ones may be somebody's who is at work.
    """
    pattern = re.compile(rf"\.(?:{names})\.[0-9a-f]{{8}}\.tmp")
    for path in folder.glob(".*.tmp"):
        with suppress(OSError):  # gone, or somebody else's
            if pattern.fullmatch(path.name) and time.time() - path.stat().st_mtime >= age:
                path.unlink()


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


def parse_json(content: str | bytes, what: str) -> Any:
    """Read JSON from anywhere. What Python's reader lets through and later code stumbles over is refused, too: numbers
    of hundreds of digits, nesting without end, halves of characters.

    Args:
        what: how the sentence calls it, such as a file's name.

    Raises:
        FileError: one sentence.
    """
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content.removeprefix("\ufeff")
        value = json.loads(text, parse_int=_parse_int)
        if text.count("[") + text.count("{") > DEEPEST:
            _check_depth(value)
        if _ESCAPED_SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError:
        raise FileError(f"{what} isn't text in UTF-8; give a JSON file.") from None
    except UnicodeEncodeError:
        raise FileError(f"{what} holds half of a character (\\ud800 to \\udfff); correct that text.") from None
    except json.JSONDecodeError as error:
        raise FileError(
            f"{what} isn't valid JSON: {error.msg} in line {error.lineno}, column {error.colno}; correct that line."
        ) from None
    except (RecursionError, MemoryError):
        raise FileError(f"{what} is nested too deeply or too large to be read.") from None
    except ValueError as error:
        raise FileError(f"{what} isn't valid JSON: {error}.") from None
    return value


def read_json(path: Path, what: str = "") -> Any:
    """Read a JSON file; see :func:`parse_json`.

    Args:
        what: how the sentence calls it; the file's name where it is empty.

    Raises:
        FileError: one sentence, whatever is wrong with the file.
    """
    what = what or shortened(path.name)
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_JSON + 1)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or "its name can't be a file's"
        raise FileError(f"{shortened(str(path), 300)} can't be read ({reason}); check the path.") from None
    if len(content) > LARGEST_JSON:
        raise FileError(f"{what} is larger than {LARGEST_JSON // 2**20} MiB, which no such file is.")
    return parse_json(content, what)


def read_object(path: Path, what: str = "") -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        FileError: one sentence, whatever is wrong with the file.
    """
    value = read_json(path, what)
    if not isinstance(value, dict):
        raise FileError(f"{what or shortened(path.name)} isn't a JSON object; it must be {{…}}.")
    return value


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a ``.jsonl`` file; none without a file. What a crash or a bad disk has spoilt is left out."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        with suppress(FileError):
            found = parse_json(line, "a line")
            if isinstance(found, dict):
                yield found


def _parse_int(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST):
        level = [
            item
            for outer in level
            if isinstance(outer, (dict, list))
            for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise RecursionError


def given_path(text: str, what: str) -> Path:
    """A path as somebody typed or sent it: quotes that a file manager put around it are taken off, ``~`` is the home
    folder. It need not exist.

    Raises:
        FileError: if it can't be a path here, or can't be looked at.
    """
    try:
        path = Path(text.strip().strip('"')).expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: no file has such a name; RuntimeError: ~nobody
        reason = getattr(error, "strerror", None) or "no file can have that name"
        raise FileError(f"{what} {quoted(text)} can't be opened ({reason}); check the path.") from None
    return path


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as model sites and AUTOMATIC1111 give it."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def file_fingerprint(path: Path) -> str:
    """Tells files of gigabytes apart by their size and some parts of them, spread evenly; 10 hexadecimal digits.

    Raises:
        FileError: if it can't be read.
    """
    try:
        size = path.stat().st_size
        digest = hashlib.sha256(str(size).encode())
        with path.open("rb") as file:
            for part in range(FINGERPRINT_PARTS):
                file.seek(part * max(0, size - FINGERPRINT_PART) // (FINGERPRINT_PARTS - 1))
                digest.update(file.read(FINGERPRINT_PART))
    except OSError as error:
        raise FileError(f"Can't read {path} ({error.strerror or error}); check the path.") from error
    return digest.hexdigest()[:10]


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all. What UTF-8 can't hold is escaped, which JSON reads back as it was."""
    with replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
