"""Rotation of copies by quarter turns, for photos that have lost the mark of how the camera was held.

As with crops, nobody's own files are touched: the copy is made anew out of its photo, and masks beside it turn with it.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from lora_trainer.config import DatasetConfig
from lora_trainer.dataset.crops import crop_of, masks_of, recut, rotation_of
from lora_trainer.dataset.images import rotated
from lora_trainer.dataset.subject import Box
from lora_trainer.errors import ConfigError, DatasetError, quoted, shown
from lora_trainer.files import replaced

DEGREES = (90, 180, 270)


def rotate(image: Path, degrees: object, config: DatasetConfig | None = None) -> Path:
    """Rotate a copy clockwise; its crop turns with it. Rotated back, a copy that isn't cropped is as it was, byte for
    byte.

    Args:
        image: the copy as it is now.
        degrees: 90, 180 or 270.

    Returns:
        The file of the copy.

    Raises:
        ConfigError: if it isn't one of these.
        DatasetError: it isn't a copy, another picture has its name, or a mask can't be rotated.
        FileError: if it can't be written.
    """
    if isinstance(degrees, bool) or not isinstance(degrees, int) or degrees not in DEGREES:
        raise ConfigError(f"degrees can't be {quoted(degrees)}; give one of {', '.join(map(str, DEGREES))}.")
    box, turned = crop_of(image), (rotation_of(image) + degrees) % 360
    masks = {mask: _mask(mask, degrees) for mask in masks_of(image)}
    target = recut(image, None if box is None else rotated_box(box, degrees), turned, config or DatasetConfig())
    for mask, picture in masks.items():
        with replaced(mask) as temporary:
            picture.save(temporary, "PNG")
    return target


def rotated_box(box: Box, degrees: int) -> Box:
    """Where a part of a picture is after the picture was turned clockwise; shares of the sides."""
    for _ in range(degrees // 90):
        left, top, right, bottom = box
        box = (1 - bottom, left, 1 - top, right)
    return box


def _mask(path: Path, degrees: int) -> Image.Image:
    if path.suffix.lower() != ".png":
        raise DatasetError(
            f"The mask {shown(path.name)} can't be rotated without loss, and its image stays as it is; save the mask "
            "as PNG."
        )
    try:
        with Image.open(path) as mask:
            return rotated(mask, degrees).copy()
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(f"The mask {shown(path.name)} can't be read ({error}); make it anew.") from error
