"""Finding and reading caption files."""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

USUAL_ENDINGS = (".txt", ".caption")


@dataclass(frozen=True)
class Caption:
    """What an image is trained with, and where it comes from."""

    lines: tuple[str, ...]
    source: Literal["file", "missing", "empty"]
    ending: str = ""  # of the file it came from
    known_encoding: bool = True


def caption_endings(extension: str) -> tuple[str, ...]:
    """Endings to look for, in order.

    .txt and .caption stand in for each other, since trainers differ in which of them they read. Any other ending is
    taken at its word, as in sd-scripts: configurations name one that no file has where the folder's words are meant.
    """
    first = extension.strip()
    if first and not first.startswith("."):
        first = f".{first}"
    if first and first.lower() not in USUAL_ENDINGS:
        return (first,)
    return tuple(dict.fromkeys(ending for ending in (first, *USUAL_ENDINGS) if ending))


def folded(name: str) -> str:
    """A file's name without case, and with one code for each letter: macOS writes é as e and an accent."""
    return unicodedata.normalize("NFC", name).lower()


def find_caption(image: Path, files: Mapping[str, Path], endings: tuple[str, ...]) -> tuple[Path, str] | None:
    """The caption file of an image and its ending: same name, first ending that is there.

    ``files`` maps the names of the folder's files, and these as :func:`folded`, to their paths: the name as the image
    has it comes first, then any case.
    """
    for ending in endings:
        path = files.get(image.stem + ending) or files.get(folded(image.stem + ending))
        if path is not None:
            return path, ending
    return None


def read_lines(path: Path) -> tuple[tuple[str, ...], bool]:
    """The non-empty lines of a text file, and whether it is UTF-8 (or UTF-16 with a mark).

    Files from older Windows editors are read as Windows-1252, in which every byte means something.

    Raises:
        OSError: if it can't be read.
    """
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text, known = data.decode("utf-16", errors="replace"), True
    else:
        try:
            text, known = data.decode("utf-8-sig"), True
        except UnicodeDecodeError:
            text, known = data.decode("cp1252", errors="replace"), False
    lines = (line.replace("\0", "").strip() for line in text.splitlines())
    return tuple(line for line in lines if line), known
