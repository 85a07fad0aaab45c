"""Captions out of a metadata file of sd-scripts' fine-tuning (``metadata_file``, ``in_json``): by images' paths."""

from __future__ import annotations

from pathlib import Path, PurePath

from lora_trainer.dataset.texts import folded
from lora_trainer.errors import ConfigError, quoted, shortened
from lora_trainer.files import read_object


def read_metadata(path: Path) -> dict[str, str]:
    """The text of each image as sd-scripts makes it of ``caption`` and ``tags``.

    Returns:
        By the image's name, and by folder/name, as :func:`lora_trainer.dataset.texts.folded`, with and without the
        ending as the file has it; "" for a name by which images have different texts.

    Raises:
        FileError, ConfigError: if it can't be read or isn't such a file.
    """
    found: dict[str, str] = {}
    for key, entry in read_object(path).items():
        parts = [entry.get(name) for name in ("caption", "tags")] if isinstance(entry, dict) else [0]
        if not all(part is None or isinstance(part, str) for part in parts):
            raise ConfigError(
                f"{shortened(path.name)} is no metadata file: {quoted(key)} has no caption or tags that are text."
            )
        text = ", ".join(part for part in parts if isinstance(part, str) and part)
        image = PurePath(key.replace("\\", "/"))
        for name in (folded(image.name), folded(f"{image.parent.name}/{image.name}")):
            found[name] = text if found.get(name, text) == text else ""
    return found


def text_of(image: Path, texts: dict[str, str]) -> str:
    """What :func:`read_metadata` has for an image; "" if nothing."""
    names = (f"{image.parent.name}/{image.name}", f"{image.parent.name}/{image.stem}", image.name, image.stem)
    return next((texts[key] for name in names if (key := folded(name)) in texts), "")
