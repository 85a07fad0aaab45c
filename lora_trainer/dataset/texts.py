"""Finding and reading caption files."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from pathlib import Path

FALLBACK_ENDINGS = (".txt", ".caption")


def caption_endings(extension: str) -> tuple[str, ...]:
    """Endings to look for, in order: the configured one, then .txt and .caption."""
    first = extension.strip()
    if first and not first.startswith("."):
        first = f".{first}"
    return tuple(dict.fromkeys(ending for ending in (first, *FALLBACK_ENDINGS) if ending))


def find_caption(image: Path, files: Mapping[str, Path], endings: tuple[str, ...]) -> tuple[Path, str] | None:
    """The caption file of an image and its ending: same name, first ending that is there.

    ``files`` maps the lower-case names of the folder's files to their paths; case doesn't matter.
    """
    for ending in endings:
        path = files.get((image.stem + ending).lower())
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
