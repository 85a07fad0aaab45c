"""Masks in files of their own: OneTrainer's ``NAME-masklabel`` beside an image, and sd-scripts' conditioning_data_dir.

White counts in the loss, black doesn't. Where both are there, the folder of masks is used, which somebody named.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageChops

from lora_trainer.dataset.buckets import Size
from lora_trainer.dataset.decode import read_image
from lora_trainer.dataset.findings import Finding
from lora_trainer.dataset.items import Folder, ImageItem
from lora_trainer.dataset.layout import Listing, list_folder
from lora_trainer.dataset.texts import folded
from lora_trainer.errors import DatasetError, counted

MASK = "-masklabel"


def find_masks(folder: Folder, listing: Listing) -> dict[str, Path]:
    """The masks of a folder's images, by their folded names without ending; none if they aren't to be used.

    Raises:
        DatasetError: if the folder of masks isn't there.
    """
    if not folder.config.masked_loss:
        return {}
    beside = {folded(mask.stem).removesuffix(MASK): mask for mask in listing.masks if folded(mask.stem).endswith(MASK)}
    if folder.masks is None:
        return beside
    return {**beside, **{folded(mask.stem): mask for mask in list_folder(folder.masks).images}}


def check_mask(mask: Path, size: Size) -> None:
    """Refuse a mask that can't be meant.

    Raises:
        DatasetError: the end of a sentence that begins with the image's path.
    """
    status = mask.stat()
    try:
        found, brightest = _look(mask, status.st_size, status.st_mtime_ns)
    except DatasetError as error:
        raise DatasetError(f"has a mask that can't be used: {error}") from error
    if found != size:
        raise DatasetError(
            f"is {size[0]}x{size[1]} px, but its mask {mask.name} {found[0]}x{found[1]} px; save the mask at the "
            "image's size."
        )
    if not brightest:
        raise DatasetError(
            f"has a mask that is all black, {mask.name}, so nothing of it would be trained; paint white what counts, "
            "or delete the mask."
        )


@lru_cache(maxsize=1 << 14)
def _look(mask: Path, file_size: int, changed_ns: int) -> tuple[Size, int]:
    """Size and brightest value of a mask; remembered as long as its size and time of change are the same."""
    plane = read_mask(mask)
    return plane.size, int(plane.getextrema()[1])  # type: ignore[arg-type]


def read_mask(mask: Path) -> Image.Image:
    """How much each pixel counts, mode L: the red channel, as sd-scripts takes it; what is transparent doesn't count.

    Raises:
        DatasetError: names the file and why it can't be read.
    """
    colour, alpha = read_image(mask)
    red = colour.getchannel("R")
    return red if alpha is None else ImageChops.multiply(red, alpha)


def mask_key(mask: Path | None) -> str:
    """What an image's mask adds to the key of what was encoded; "" without one.

    Raises:
        DatasetError: if it can't be read any more.
    """
    if mask is None:
        return ""
    try:
        return hashlib.sha256(mask.read_bytes()).hexdigest()
    except OSError as error:
        raise DatasetError(f"{mask} can't be read any more ({error.strerror}); start training again.") from error


def mask_remarks(folder: Folder, items: Sequence[ImageItem], listing: Listing) -> list[Finding]:
    """What became of the masks of a folder."""
    there = len(listing.masks) + (len(list_folder(folder.masks).images) if folder.masks else 0)
    if not folder.config.masked_loss:
        told = (
            f"{folder.name}: {counted(there, 'mask')} {'is' if there == 1 else 'are'} not used, nor trained as images"
        )
        remedy = "switch masked_loss on to train only what is white in them"
        return [Finding("masks", "info", told, remedy, tuple(listing.masks))] if there else []
    without = [item.path for item in items if item.mask is None]
    if not items or folder.config.alpha_mask or folder.is_reg:
        return []
    if not without:
        return [Finding("masks", "info", f"{folder.name}: all {counted(len(items), 'image')} with a mask")]
    some = f"{folder.name}: {len(without)} of {counted(len(items), 'image')} without a mask, trained as a whole"
    remedy = f"give each one a mask, such as {without[0].stem}{MASK}.png beside it, or switch masked_loss off"
    return [Finding("masks", "warning", some, remedy, tuple(without))]
