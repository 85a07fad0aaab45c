"""Crops of the copies that :mod:`lora_trainer.dataset.prepare` made; nobody's own files are ever cropped.

The folder of copies remembers which photo each one came from, and keeps the copy as it was before its crop: a crop is
cut out of the photo itself as long as that is there, and can be changed or undone at any time. Copies that are rotated
(:mod:`lora_trainer.dataset.rotation`) are cut in the same way.
"""

from __future__ import annotations

import glob
import math
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from PIL import Image

from lora_trainer.config import DatasetConfig
from lora_trainer.dataset.buckets import Size, bucket_resolutions, place
from lora_trainer.dataset.copies import Copied, read_record, write_record
from lora_trainer.dataset.decode import image_endings, is_plain, read_image
from lora_trainer.dataset.images import resize, rotated
from lora_trainer.dataset.layout import SET_ASIDE
from lora_trainer.dataset.masks import MASK
from lora_trainer.dataset.subject import Box, find_subject
from lora_trainer.errors import DatasetError, FileError, shown
from lora_trainer.files import file_sha256, replaced

UNCROPPED = ".uncropped"  # a folder in it: the copies as they were before their crop
LARGEST = 1024  # px: no copy has more pixels than a square of this side, the largest that SDXL is trained at
WHOLE = 0.85  # of the picture's area: a suggestion that keeps more isn't worth a crop


def crop_of(image: Path) -> Box | None:
    """The crop of a copy, as shares of the rotated whole.

    Raises:
        DatasetError: if it isn't a copy.
    """
    return _copied(image)[1].crop


def rotation_of(image: Path) -> int:
    """By how many degrees a copy was rotated clockwise; as :func:`crop_of`."""
    return _copied(image)[1].rotation


def crop(image: Path, box: Box, config: DatasetConfig) -> Path:
    """Cut a copy anew; its caption stays.

    Args:
        image: the copy as it is now.
        box: shares of the whole picture's sides; it is fitted to a bucket's shape.

    Returns:
        The file of the copy, a PNG.

    Raises:
        DatasetError: it isn't a copy, the box is too small, or :func:`obstacle` names a file.
        FileError: if it can't be written.
    """
    rotation = rotation_of(image)
    if problem := obstacle(image):
        raise DatasetError(problem)
    return recut(image, box, rotation, config)


def recut(image: Path, box: Box | None, rotation: int, config: DatasetConfig) -> Path:
    """Make a copy anew out of the whole picture: rotated clockwise by so many degrees, then cropped. Where neither is
    asked for, it is put back as it was, byte for byte.

    Raises:
        DatasetError, FileError: as of :func:`crop`.
    """
    copies, copied = _copied(image)
    if problem := _namesake(image):
        raise DatasetError(problem)
    if box is None and not rotation:
        return _put_back(image)
    if not copied.edited and copied.cut and file_sha256(image) != copied.cut:
        copied = replace(copied, source="")  # somebody retouched it: what is cut is that, not the photo
    cut = _cut(copied.photo() or whole_of(image), box, rotation, config)
    _set_aside(image, copied)
    _keep(image)
    target = image.with_suffix(".png")
    with replaced(target) as temporary:
        cut.save(temporary, "PNG")
    if target != image:
        image.unlink()
    made = replace(copied, crop=box, rotation=rotation, cut=file_sha256(target))
    write_record(image.parent, copies | {shown(image.stem): made})
    return target


def obstacle(image: Path) -> str:
    """Why a copy isn't cropped: what somebody put beside it would be lost, or not fit any more."""
    for mask in masks_of(image):
        return (
            f"{shown(image.name)} isn't changed, as its mask {shown(mask.name)} wouldn't fit any more; move the mask "
            "away, then make it anew."
        )
    return _namesake(image)


def masks_of(image: Path) -> list[Path]:
    """The masks beside an image."""
    return _beside(image, f"{image.stem}{MASK}")


def _namesake(image: Path) -> str:
    other = next((path for path in _beside(image, image.stem) if path != image), None)
    same = "" if other is None else shown(other.name)
    return f"{shown(image.name)} isn't changed, as {same} has the same name; rename one of them." if same else ""


def _beside(image: Path, stem: str) -> list[Path]:
    """The pictures of that stem in an image's folder."""
    found = image.parent.glob(f"{glob.escape(stem)}.*")
    return sorted(path for path in found if path.stem == stem and path.suffix.lower() in image_endings())


def crop_to_subject(image: Path, config: DatasetConfig | None = None) -> bool:
    """Crop a copy as suggested; whether there was something to cut off."""
    box = suggestion(image)
    if box is not None:
        crop(image, box, config or DatasetConfig())
    return box is not None


def uncrop(image: Path) -> Path:
    """Put a copy back as it was before its crop: byte for byte, unless it is rotated.

    Returns:
        Its file.

    Raises:
        DatasetError: if it isn't a copy, or :func:`obstacle` names a file.
        FileError: if it can't be put back.
    """
    copied = _copied(image)[1]
    if copied.crop is not None and (problem := obstacle(image)):
        raise DatasetError(problem)
    if copied.crop is None and copied.rotation:
        return image
    return recut(image, None, copied.rotation, DatasetConfig())


def _put_back(image: Path) -> Path:
    copies, copied = _copied(image)
    kept = _kept(image)
    if kept is None:
        return image
    target = image.with_name(kept.name)
    _set_aside(image, copied)
    try:
        kept.replace(target)
        if target != image:
            image.unlink()
        with suppress(OSError):
            kept.parent.rmdir()  # the last one
    except OSError as error:
        raise FileError(f"{target} can't be put back ({error.strerror}); check the folder's permissions.") from error
    whole = replace(copied, crop=None, rotation=0, cut=file_sha256(target))
    write_record(image.parent, copies | {shown(image.stem): whole})
    return target


def whole_of(image: Path) -> Path:
    """The file of the copy's whole picture: as it was before it was cropped and rotated."""
    return _kept(image) or image


def whole_picture(image: Path) -> Image.Image:
    """The copy's whole picture as it is rotated.

    Raises:
        DatasetError: if it isn't a copy, or can't be read.
    """
    return rotated(read_image(whole_of(image))[0], rotation_of(image))


def suggestion(image: Path) -> Box | None:
    """A crop to what is probably the subject; None where that is most of the picture.

    Raises:
        DatasetError: if it can't be read.
    """
    left, top, right, bottom = box = find_subject(whole_picture(image))
    return box if (right - left) * (bottom - top) < WHOLE else None


def shapes(config: DatasetConfig) -> list[Size]:
    """The shapes that images are trained at: buckets, or the one resolution."""
    if not config.enable_bucket:
        return [config.resolution]
    return list(bucket_resolutions(config.resolution, config.min_bucket_reso, config.max_bucket_reso,
                                   config.bucket_reso_steps)) or [config.resolution]  # fmt: skip


def fitted_box(box: Box, size: Size, config: DatasetConfig) -> tuple[int, int, int, int]:
    """A box in pixels with the shape of the bucket that its content will have; never larger than asked for.

    Args:
        box: shares of the sides.
        size: (width, height) of the picture.

    Raises:
        DatasetError: if it is too small for a bucket.
    """
    left, top = (int(share * side + 0.5) for share, side in zip(box[:2], size, strict=True))
    width, height = (int(share * side + 0.5) - start
                     for share, side, start in zip(box[2:], size, (left, top), strict=True))  # fmt: skip
    try:
        bucket = place((width, height), config).bucket
    except DatasetError as error:
        raise DatasetError(f"What the crop keeps {error}") from None
    if width * bucket[1] > height * bucket[0]:
        wide, high = max(1, int(height * bucket[0] / bucket[1] + 0.5)), height
    else:
        wide, high = width, max(1, int(width * bucket[1] / bucket[0] + 0.5))
    left, top = left + (width - wide) // 2, top + (height - high) // 2
    return (left, top, left + wide, top + high)


def _copied(image: Path) -> tuple[dict[str, Copied], Copied]:
    copies = read_record(image.parent)
    found = copies.get(shown(image.stem))
    if found is None:
        raise DatasetError(
            f"{shown(image.name)} isn't a copy that was made here, and your own files stay as they are; copy the "
            "folder with “I just have photos” or the command prepare, then change the copies."
        )
    return copies, found


def _kept(image: Path) -> Path | None:
    """The copy as it was before its crop, if it has one."""
    kept = sorted((image.parent / UNCROPPED).glob("*"))
    return next((path for path in kept if path.stem == image.stem), None)


def _keep(image: Path) -> None:
    """Keep the copy as it is, before its first crop."""
    if _kept(image) is None:
        with replaced(image.parent / UNCROPPED / image.name) as temporary:
            shutil.copy2(image, temporary)


def _set_aside(image: Path, copied: Copied) -> None:
    """A copy that somebody edited after we did isn't overwritten, but kept in the folder's ``set-aside``."""
    if copied.edited and copied.cut and file_sha256(image) != copied.cut:
        target, number = image.parent / SET_ASIDE / image.name, 2
        while target.exists():
            target, number = target.with_name(f"{image.stem}-{number}{image.suffix}"), number + 1
        with replaced(target) as temporary:
            shutil.copy2(image, temporary)


def _cut(path: Path, box: Box | None, rotation: int, config: DatasetConfig) -> Image.Image:
    """The part, no larger than copies are; with its transparency where that needs no conversion."""
    whole = read_image(path)[0]
    if is_plain(path, whole.width * whole.height):
        with Image.open(path) as image:
            if image.mode == "RGBA":
                whole = image.copy()
    part = rotated(whole, rotation)
    if box is not None:
        part = part.crop(fitted_box(box, part.size, config))
    scale = math.sqrt(LARGEST * LARGEST / (part.width * part.height))
    if scale < 1:
        part = Image.fromarray(resize(part, (round(part.width * scale), round(part.height * scale))))
    return part
