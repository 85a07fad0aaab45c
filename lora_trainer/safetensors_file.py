"""The header of a safetensors file, read without the weights and without trust: names, shapes, places, metadata.

The format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_trainer.errors import FileError, shortened
from lora_trainer.files import parse_json

LARGEST_HEADER = 100_000_000  # bytes; the format's own limit
ITEM_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What a file says of its contents."""

    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]


def read_header(path: Path) -> Header:
    """Read the header and hold it against the file's size.

    Raises:
        FileError: in one sentence, if the file is missing, truncated, damaged or no safetensors file.
    """
    name = shortened(path.name)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > LARGEST_HEADER:
                raise _no_header(name)
            if size < 10 or length > size:
                raise _truncated(name)
            content = file.read(length)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or "no file has such a name"
        raise FileError(
            f"Can't read {shortened(str(path), 300)}: {reason}; check the file and its permissions."
        ) from error
    try:
        rows = parse_json(content, name)
        if not isinstance(rows, dict):
            raise TypeError
        metadata = {str(key): str(value) for key, value in rows.pop("__metadata__", {}).items()}
        ends = [_check(row) for row in rows.values()]
        shapes = {tensor: tuple(row["shape"]) for tensor, row in rows.items()}
    except (FileError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _no_header(name) from error
    whole = 8 + length + max(ends, default=0)
    if size < whole:
        raise _truncated(name)
    if size > whole or any(_wrong_extent(row) for row in rows.values()):
        raise FileError(f"{name} is damaged: its header doesn't fit its contents; download it again.")
    return Header(shapes, metadata)


def whole_number(text: str, most: int) -> int | None:
    """A number as metadata hold it, as text; None where it is none, or above ``most``."""
    text = text.strip()
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(most))):
        return None
    return int(text) if int(text) <= most else None


def _check(row: Any) -> int:
    """The end of a tensor's bytes, if its row is what the format asks for."""
    begin, end = row["data_offsets"]
    numbers = [begin, end, *row["shape"]]
    if any(type(number) is not int or number < 0 for number in numbers) or not isinstance(row["dtype"], str):
        raise TypeError
    return int(end)


def _wrong_extent(row: Mapping[str, Any]) -> bool:
    begin, end = row["data_offsets"]
    item = ITEM_BYTES.get(row["dtype"])
    return item is not None and end - begin != math.prod(row["shape"]) * item


def _truncated(name: str) -> FileError:
    return FileError(f"{name} is truncated: it is shorter than its header says; download it again.")


def _no_header(name: str) -> FileError:
    return FileError(f"{name} isn't a safetensors file, or its header is damaged; download it again.")
