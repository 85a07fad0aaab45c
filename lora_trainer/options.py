"""Reading and checking single option values; the sentences that refuse them."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import math
from collections.abc import Iterable
from typing import Any

from lora_trainer.errors import ConfigError


def unknown_name(name: str, known: Iterable[str]) -> str:
    """The sentence for an option that doesn't exist, with the nearest known names."""
    near = difflib.get_close_matches(name, list(known), n=2, cutoff=0.6)
    hint = f"; did you mean {' or '.join(near)}?" if near else "; see the README's table of options."
    return f"Unknown option {name!r}{hint}"


def convert(name: str, value: Any, type_name: str) -> Any:
    """Read ``value`` (often a string from a form or a JSON) as the option's type.

    Raises:
        ConfigError: if it can't be read as that type.
    """
    optional = type_name.endswith("| None")
    kind = type_name.removesuffix("| None").strip()
    if optional and (value is None or value == ""):
        return None
    try:
        return _READERS[kind](value)
    except (ValueError, TypeError, SyntaxError, OverflowError):
        raise ConfigError(f"{name} can't be {value!r}; it must be {_WORDS[kind]}.") from None


def check_group(group: Any) -> None:
    """Check every field of an option group against its choices and range.

    Raises:
        ConfigError: quotes the option, its value and what is allowed.
    """
    for row in dataclasses.fields(group):
        value, meta = getattr(group, row.name), row.metadata
        choices = meta.get("choices")
        if choices and value not in choices:
            raise ConfigError(f"{row.name} can't be {value!r}; choose one of {', '.join(map(str, choices))}.")
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, (int, float)) and not isinstance(number, bool):
                _check_range(row.name, number, meta.get("minimum"), meta.get("maximum"))


def _check_range(name: str, value: float, minimum: float | None, maximum: float | None) -> None:
    if not math.isfinite(value):
        raise ConfigError(f"{name} can't be {value}; give a finite number.")
    if minimum is not None and value < minimum:
        raise ConfigError(f"{name} can't be {value}; the smallest value is {minimum}.")
    if maximum is not None and value > maximum:
        raise ConfigError(f"{name} can't be {value}; the largest value is {maximum}.")


def _bool(value: Any) -> bool:
    if isinstance(value, str):
        text = value.strip().lower()
        if text in {"true", "yes", "on", "1"}:
            return True
        if text in {"false", "no", "off", "0", ""}:
            return False
        raise ValueError
    if isinstance(value, (bool, int)) and value in (0, 1):
        return bool(value)
    raise TypeError


def _int(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError
    number = float(value)
    if number != int(number):
        raise ValueError
    return int(number)


def _float(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError
    if isinstance(value, str) and value.strip().endswith("%"):
        return float(value.strip()[:-1]) / 100
    return float(value)


def _str(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _list(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [part.strip() for part in value.strip("()[] ").split(",") if part.strip()]
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _size(value: Any) -> tuple[int, int]:
    numbers = [_int(part) for part in _list(value)]
    if len(numbers) not in (1, 2):
        raise ValueError
    return (numbers[0], numbers[-1])


def arguments(value: Any) -> dict[str, Any]:
    """Read ``a=1 b=(0.9,0.99) c=text`` (or a list of such, or a dict) as keyword arguments, values as Python literals."""
    if isinstance(value, dict):
        return dict(value)
    parts = value.split() if isinstance(value, str) else list(value)
    result: dict[str, Any] = {}
    for part in parts:
        key, equals, text = str(part).partition("=")
        if not equals:
            raise ValueError
        try:
            result[key.strip()] = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError):
            result[key.strip()] = text.strip()
    return result


_READERS: dict[str, Any] = {
    "bool": _bool,
    "int": _int,
    "float": _float,
    "str": _str,
    "tuple[int, int]": _size,
    "tuple[int, ...]": lambda value: tuple(_int(part) for part in _list(value)),
    "tuple[float, ...]": lambda value: tuple(_float(part) for part in _list(value)),
    "dict[str, Any]": arguments,
}
_WORDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "tuple[int, int]": "width,height in whole pixels",
    "tuple[int, ...]": "a list of whole numbers",
    "tuple[float, ...]": "a list of numbers",
    "dict[str, Any]": "a list of key=value",
}
