"""The table of all options as Markdown: what ``docs/options.md`` holds between its two marks, as a test makes sure."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from lora_trainer.config.run import OPTIONS, OptionRow, RunConfig
from lora_trainer.config.values import argument_text

BEGIN, END = "<!-- options -->", "<!-- /options -->"  # the marks


def options_table() -> str:
    """One Markdown table for each group of options: name, default, possible values, meaning."""
    parts: list[str] = []
    for group in dataclasses.fields(RunConfig):
        title = str(getattr(RunConfig(), group.name).__doc__)
        parts += [f"## {title.rstrip('.')}", "", "| option | default | values | meaning |", "|---|---|---|---|"]
        parts += [_line(row) for row in OPTIONS.values() if row.group == group.name]
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def _line(row: OptionRow) -> str:
    cells = (f"`{row.name}`", _value(row.default), _values(row), row.help)
    return "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"


def _value(value: Any) -> str:
    if value is None or value in ("", (), {}):
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, str):
        return f"`{value}`"
    return argument_text(value) if isinstance(value, dict) else f"{value:g}" if isinstance(value, float) else str(value)


_KINDS = {
    "bool": "true, false", "bool | None": "true, false, empty", "str": "text", "dict[str, Any]": "key=value …",
    "tuple[int, int]": "width,height", "tuple[int, ...]": "numbers", "tuple[float, ...]": "numbers",
    "tuple[str, ...]": "texts", "int": "whole number", "float": "number", "float | None": "number, empty",
}  # fmt: skip


def _values(row: OptionRow) -> str:
    """What is possible, in words: choices, or the kind with range and unit."""
    if row.words:
        return "; ".join(f"`{choice}` ({row.words[choice]})" for choice in row.choices)
    if row.choices:
        return ", ".join(str(choice) or "empty" for choice in row.choices)
    words, unit = _KINDS[row.type], f" {row.unit}" if row.unit else ""
    if row.minimum is not None and row.maximum is not None:
        words += f" {row.minimum:g}…{row.maximum:g}"
    elif row.minimum is not None:
        words += f" ≥ {row.minimum:g}"
    elif row.maximum is not None:
        words += f" ≤ {row.maximum:g}"
    if row.multiple:
        words += f", multiples of {row.multiple}"
    return words + unit


def renewed(page: str) -> str:
    """The page with today's tables between the marks."""
    return renewed_between(page, options_table())


def renewed_between(page: str, tables: str) -> str:
    """A page with these tables between the marks."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{tables}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")
