"""sd-scripts' TOML files in and out, and the line that a key stands in."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lora_trainer.errors import ConfigError, FileError, first_line, shortened
from lora_trainer.files import write_text

READERS = ("tomllib", "tomli", "pip._vendor.tomli")  # pip has a copy wherever the first isn't there
Key = tuple[str | int, ...]  # such as ("datasets", 0, "subsets", 1, "num_repeats")

_PART = r"""(?:"(?:[^"\\]|\\.)*"|'[^']*'|[\w-]+)"""
_DOTTED = rf"{_PART}(?:\s*\.\s*{_PART})*"
_PARTS = re.compile(_PART)
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_DOTTED})\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(rf"\s*({_DOTTED})\s*=")
_BARE = re.compile(r"[\w-]+", re.ASCII)


def read_toml(path: Path) -> dict[str, Any]:
    """The file's content.

    Raises:
        FileError: if it can't be read.
        ConfigError: if it isn't TOML (names the line), or nothing that reads TOML is installed.
    """
    name, reader = shortened(path.name), _reader()
    if reader is None:
        raise ConfigError(f"{name} can't be read: TOML needs Python 3.11 or the package tomli; give JSON instead.")
    text = _text(path)
    try:
        content: dict[str, Any] = reader.loads(text)
    except (reader.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{name} is no valid TOML: {first_line(error)}; correct it there.") from error
    return content


def key_lines(path: Path) -> dict[Key, int]:
    """The lines of a TOML file that has been read, by the keys in them; keys inside of inline tables have none."""
    lines: dict[Key, int] = {}
    arrays: dict[Key, int] = {}  # tables so far of each [[array]]
    table: Key = ()
    for number, line in enumerate(_text(path).splitlines(), 1):
        if header := _HEADER.match(line):
            table = ()
            *outer, last = _names(header[2])
            for part in outer:
                table = (*table, part)
                table += (arrays[table],) if table in arrays else ()
            table = (*table, last)
            if header[1] == "[[":
                arrays[table] = arrays.get(table, -1) + 1
                table = (*table, arrays[table])
            lines.setdefault(table, number)
        elif found := _KEY.match(line):
            key = table
            for part in _names(found[1]):
                key = (*key, part)
                lines.setdefault(key, number)
    return lines


def _names(dotted: str) -> list[str]:
    """The parts of a dotted key, without their quotes."""
    parts = _PARTS.findall(dotted)
    return [_reader().loads(f"name = {part}")["name"] if "\\" in part else part.strip("\"'") for part in parts]


def write_toml(path: Path, values: Mapping[str, Any]) -> None:
    """Write a file with these tables.

    Raises:
        FileError: if it can't be written.
    """
    write_text(path, "\n".join(_lines(values, "")).strip() + "\n")


def _lines(table: Mapping[str, Any], name: str) -> list[str]:
    """The lines of a table: first its values, then its tables and arrays of tables."""
    inner = {key: value for key, value in table.items() if isinstance(value, Mapping) or _are_tables(value)}
    lines = [f"{_key(key)} = {_value(value)}" for key, value in table.items() if key not in inner]
    for key, value in inner.items():
        called = f"{name}.{_key(key)}" if name else _key(key)
        one = isinstance(value, Mapping)
        for each in [value] if one else value:
            lines += ["", f"[{called}]" if one else f"[[{called}]]", *_lines(each, called)]
    return lines


def _are_tables(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Sequence):
        return f"[{', '.join(map(_value, value))}]"
    return repr(value)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise FileError(f"Can't read {shortened(path.name)}: {why}.") from error


def _reader() -> Any:
    """The standard library's from Python 3.11 on; before, the package that it came from, where it is installed."""
    for name in READERS:
        with suppress(ImportError):  # of pip
            if importlib.util.find_spec(name):
                return importlib.import_module(name)
    return None
