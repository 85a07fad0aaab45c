"""Reading and checking single option values; the sentences that refuse them."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from lora_trainer.errors import ConfigError, quoted

LARGEST = 2**63  # no whole number of an option is that large
OTHER_NAMES = {  # of kohya's files, which are read by --config -> what says it among the options
    "network_module": "algo",
    "LoRA_type": "algo",
    "network_args": "algo, and the options of its network type",
    "fp8_base": "base_8bit",
    "use_8bit_adam": "optimizer_type AdamW8bit",
    "epoch": "max_train_epochs",
}


def unknown_name(name: str, known: Iterable[str]) -> str:
    """The sentence for an option that doesn't exist, with the nearest known names."""
    if name in OTHER_NAMES:
        return f"Unknown option {quoted(name)}: that is kohya's name; here it is {OTHER_NAMES[name]}."
    near = difflib.get_close_matches(name[:100], list(known), n=2, cutoff=0.6)
    hint = f"; did you mean {' or '.join(near)}?" if near else "; see docs/options.md for all options."
    return f"Unknown option {quoted(name)}{hint}"


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
    except (ValueError, TypeError, SyntaxError, OverflowError, RecursionError, MemoryError):
        raise ConfigError(f"{name} can't be {quoted(value)}; it must be {_WORDS[kind]}.") from None


def check_group(group: Any) -> None:
    """Check every field of an option group against its choices and range.

    Raises:
        ConfigError: quotes the option, its value and what is allowed.
    """
    for row in dataclasses.fields(group):
        check_value(row.name, getattr(group, row.name), row.metadata)


def check_value(name: str, value: Any, constraints: Mapping[str, Any]) -> None:
    """Check one value against ``choices``, ``minimum``, ``maximum`` and ``multiple`` of its row.

    Raises:
        ConfigError: quotes the option, its value and what is allowed.
    """
    choices = constraints.get("choices")
    if choices and value not in choices:
        raise ConfigError(
            f"{name} can't be {quoted(value)}; choose one of {', '.join(str(choice) or 'empty' for choice in choices)}."
        )
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, (int, float)) and not isinstance(number, bool):
            _check_range(name, number, constraints)


def _check_range(name: str, value: float, constraints: Mapping[str, Any]) -> None:
    minimum, maximum, multiple = (constraints.get(key) for key in ("minimum", "maximum", "multiple"))
    if not math.isfinite(value):
        raise ConfigError(f"{name} can't be {quoted(value)}; give a finite number.")
    if minimum is not None and value < minimum:
        raise ConfigError(f"{name} can't be {quoted(value)}; the smallest value is {minimum}.")
    if maximum is not None and value > maximum:
        raise ConfigError(f"{name} can't be {quoted(value)}; the largest value is {maximum}.")
    if multiple is not None and value % multiple:
        raise ConfigError(f"{name} can't be {quoted(value)}; it must be a multiple of {multiple}.")


def plain(value: Any) -> Any:
    """The value as JSON has it: tuples become lists, also inside; dicts are copied."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _tuples(value: Any) -> Any:
    """The inverse of :func:`plain`: lists become tuples, so that a value equals itself after a trip through JSON."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value


def _bool(value: Any) -> bool:
    if isinstance(value, str):
        text = value.strip().lower()
        if text in {"true", "yes", "on", "1"}:
            return True
        if text in {"false", "no", "off", "0", ""}:
            return False
        raise ValueError
    if isinstance(value, (bool, int, float)) and value in (0, 1):
        return bool(value)
    raise TypeError


def _int(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError
    if isinstance(value, int) or (isinstance(value, str) and value.strip().lstrip("+-").isdecimal()):
        whole = int(value)  # not by way of float, which would round a long seed
    else:
        whole = int(float(value))
        if float(value) != whole:
            raise ValueError
    if abs(whole) >= LARGEST:
        raise ValueError
    return whole


def _float(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError
    if isinstance(value, str) and value.strip().endswith("%"):
        return float(value.strip()[:-1]) / 100
    return float(value)


def _str(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise TypeError
    text = str(value)
    if "\0" in text:
        raise ValueError
    text.encode()  # half of a character can't be written anywhere
    return text


def _list(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [part.strip() for part in value.strip("()[] ").split(",") if part.strip()]
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _size(value: Any) -> tuple[int, int]:
    if isinstance(value, str):
        value = value.lower().replace("x", ",")  # as this program writes sizes itself
    numbers = [_int(part) for part in _list(value)]
    if len(numbers) not in (1, 2):
        raise ValueError
    return (numbers[0], numbers[-1])


_ARGUMENT = re.compile(r"""(?:"[^"]*"|'[^']*'|\([^()]*\)|\[[^\[\]]*\]|\{[^{}]*\}|[^\s"'(\[{])+""")


def arguments(value: Any) -> dict[str, Any]:
    """Read ``a=1 b=(0.9,0.99) c=text`` (or a list of such, or a dict) as keyword arguments.

    Values are Python literals where they can be read as such, else text; quotes around a whole ``"a=1"`` are taken off.
    """
    if isinstance(value, dict):
        return {str(key): _checked(_tuples(item)) for key, item in value.items()}
    if isinstance(value, str) and _ARGUMENT.sub("", value).strip():
        raise ValueError  # a bracket or quote that isn't closed
    parts = _ARGUMENT.findall(value) if isinstance(value, str) else list(value)
    result: dict[str, Any] = {}
    for part in parts:
        key, equals, text = str(part).strip("\"'" if str(part)[:1] in "\"'" else None).partition("=")
        if not equals or not key.strip():
            raise ValueError
        result[key.strip()] = _checked(_tuples(_literal(text.strip())))
    return result


def _checked(value: Any) -> Any:
    """The value, if no number in it is longer than any optimiser can use."""
    if isinstance(value, int) and abs(value) >= LARGEST:
        raise ValueError
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, set)) else ():
        _checked(item)
    return value


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text


def argument_text(value: dict[str, Any]) -> str:
    """The inverse of :func:`arguments`: ``a=1 b=(0.9,0.99)``, one word per argument."""
    return " ".join(f"{key}={_literal_text(item)}" for key, item in value.items())


def _literal_text(value: Any) -> str:
    """The value as a Python literal (so that sd-scripts reads it too), without spaces if it has none of its own."""
    compact = re.sub(r"(?<=[,:]) ", "", repr(value))
    return compact if _literal(compact) == value else repr(value)


_READERS: dict[str, Any] = {
    "bool": _bool,
    "int": _int,
    "float": _float,
    "str": _str,
    "tuple[int, int]": _size,
    "tuple[int, ...]": lambda value: tuple(_int(part) for part in _list(value)),
    "tuple[str, ...]": lambda value: tuple(_str(part) for part in _list(value)),
    "tuple[float, ...]": lambda value: tuple(_float(part) for part in _list(value)),
    "dict[str, Any]": arguments,
}
_WORDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "tuple[int, int]": "width,height in whole pixels, such as 512,512",
    "tuple[int, ...]": "a list of whole numbers",
    "tuple[str, ...]": "a list, separated by commas",
    "tuple[float, ...]": "a list of numbers",
    "dict[str, Any]": "a list such as key=value key2=value2",
}
