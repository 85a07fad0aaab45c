"""What a request to the job must hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_trainer.errors import ConfigError, DatasetError, quoted, shortened
from lora_trainer.files import given_path


def text_of(values: Mapping[str, Any], key: str, what: str) -> str:
    """The text that a request must have as ``key``; ``what`` says what it is.

    Raises:
        ConfigError: if it isn't there.
    """
    text = values.get(key)
    if not isinstance(text, str) or not text.strip():
        raise ConfigError(f"{key} is missing: give {what}.")
    return text


def config_of(given: object) -> dict[str, Any]:
    """The options of a request, by name.

    Raises:
        ConfigError: if they are no object.
    """
    if given is not None and not isinstance(given, Mapping):
        raise ConfigError(f"config can't be {quoted(given)}; give an object of option names and values.")
    return dict(given or {})


def flag_of(values: Mapping[str, Any], key: str) -> bool | None:
    """True, false or nothing; a text "false" isn't taken for true.

    Raises:
        ConfigError: if it is anything else.
    """
    value = values.get(key)
    if value is not None and not isinstance(value, bool):
        raise ConfigError(f"{key} can't be {quoted(value)}; give true or false.")
    return value


def folder_of(text: str) -> Path:
    """The folder that a request names as its dataset.

    Raises:
        LoraTrainerError: if there is none.
    """
    if not isinstance(text, str) or not text.strip():
        raise DatasetError("dataset is missing: give the folder with the images.")
    path = given_path(text, "The folder")
    if not path.is_dir():
        raise DatasetError(f"The folder {path} doesn't exist; check its path.")
    return path


def refuse_unknown(values: Mapping[str, Any], known: tuple[str, ...], what: str) -> None:
    """Refuse keys that nobody would look at.

    Raises:
        ConfigError: names them.
    """
    unknown = [key for key in values if key not in known]
    if unknown:
        raise ConfigError(
            f"{shortened(', '.join(map(repr, unknown)))} can't be used in {what}; it takes {', '.join(known)}."
        )
