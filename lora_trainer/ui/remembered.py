"""The last settings of the tab, in a file of our own: the WebUI's ui-config.json would freeze our defaults."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_trainer.config import OPTIONS, OptionRow
from lora_trainer.config.values import check_value, convert
from lora_trainer.errors import ConfigError, FileError
from lora_trainer.files import read_object, write_json

log = logging.getLogger(__name__)

FILE = "last-settings.json"
VERSION = 1


def remember(output: Path, values: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Write the tab's values; that it fails must not keep anybody from training."""
    try:
        write_json(output / FILE, {"version": VERSION, "values": dict(values), "options": dict(options)})
    except FileError as error:
        log.warning("The tab's settings aren't remembered: %s", error)


def recall(output: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values and options as they were remembered; empty where there are none that this version can read."""
    try:
        found = read_object(output / FILE)
    except FileError:
        return {}, {}
    if found.get("version") != VERSION:
        return {}, {}
    values, options = found.get("values"), found.get("options")
    if not isinstance(values, dict) or not isinstance(options, dict):
        return {}, {}
    return (
        {name: value for name, value in values.items() if isinstance(value, (str, bool))},
        {name: value for name, value in options.items() if name in OPTIONS and _fits(OPTIONS[name], value)},
    )


def _fits(row: OptionRow, value: Any) -> bool:
    """Whether an input can show it; what was typed comes back even where it is no good value."""
    if row.choices:
        return str(value) in map(str, row.choices)
    try:
        check_value(row.name, convert(row.name, value, row.type), {})
    except ConfigError:
        return isinstance(value, (str, bool))
    return True


def forget(output: Path) -> None:
    """Begin anew."""
    (output / FILE).unlink(missing_ok=True)
