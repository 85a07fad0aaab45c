"""sd-scripts' TOML files (``--config_file``): sections are only for the eye, and flattened by the importer."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from lora_trainer.errors import ConfigError, FileError, first_line, shortened


def read_toml(path: Path) -> dict[str, Any]:
    """The file's content.

    Raises:
        FileError: if it can't be read.
        ConfigError: if it isn't TOML (names the line), or nothing that reads TOML is installed.
    """
    name, reader = shortened(path.name), _reader()
    if reader is None:
        raise ConfigError(f"{name} can't be read: TOML needs Python 3.11 or the package tomli; give JSON instead.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise FileError(f"Can't read {name}: {getattr(error, 'strerror', None) or 'it is no UTF-8 text'}.") from error
    try:
        content: dict[str, Any] = reader.loads(text)
    except (reader.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{name} is no valid TOML: {first_line(error)}; correct it there.") from error
    return content


def _reader() -> Any:
    """The standard library's from Python 3.11 on; before, the package that it came from, where it is installed."""
    name = next((name for name in ("tomllib", "tomli") if importlib.util.find_spec(name)), None)
    return importlib.import_module(name) if name else None
