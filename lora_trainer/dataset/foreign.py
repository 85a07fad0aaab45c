"""Pictures in formats that can't be opened here."""

from __future__ import annotations

from pathlib import Path

from lora_trainer.dataset.decode import image_endings

_FOREIGN_IMAGES = frozenset(  # pictures that Pillow doesn't open, or only with a plug-in
    {".heic", ".heif", ".avif", ".jxl", ".svg", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".xcf"}
)
PLUGINS = {".heic": "pillow-heif", ".heif": "pillow-heif", ".jxl": "pillow-jxl-plugin"}


def is_foreign_image(path: Path) -> bool:
    """Whether it is a picture in a format that can't be opened here."""
    ending = path.suffix.lower()
    return ending in _FOREIGN_IMAGES and ending not in image_endings()


def unopened(path: Path) -> str:
    """The end of a sentence on such a picture."""
    ending = path.suffix.lower()
    plugin = PLUGINS.get(ending)
    instead = f", or install {plugin}" if plugin else ""
    return f"is a {ending} file, which can't be read here; convert it to PNG or JPEG{instead}."
