"""Crops of the copies that :mod:`lora_trainer.dataset.prepare` made; nobody's own files are ever cropped.

The folder of copies remembers which photo each one came from, and keeps the copy as it was before its crop: a crop is
cut out of the photo itself as long as that is there, and can be changed or undone at any time.
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
from lora_trainer.dataset.images import resize
from lora_trainer.dataset.layout import SET_ASIDE
from lora_trainer.dataset.masks import MASK
from lora_trainer.dataset.subject import Box, find_subject
from lora_trainer.errors import DatasetError, FileError, shown
from lora_trainer.files import file_sha256, replaced

UNCROPPED = ".uncropped"  # a folder in it: the copies as they were before their crop
LARGEST = 1024  # px: no copy has more pixels than a square of this side, the largest that SDXL is trained at
WHOLE = 0.85  # of the picture's area: a suggestion that keeps more isn't worth a crop


def crop_of(image: Path) -> Box | None:
    """The crop of a copy.

    Raises:
        DatasetError: if it isn't a copy.
    """
    return _copied(image)[1].crop


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
    copies, copied = _copied(image)
    if problem := obstacle(image):
        raise DatasetError(problem)
    if copied.crop is None and copied.cut and file_sha256(image) != copied.cut:
        copied = replace(copied, source="")  # somebody retouched it: what is cut is that, not the photo
    cut = _cut(copied.photo() or whole_of(image), box, config)
    _set_aside(image, copied)
    _keep(image)
    target = image.with_suffix(".png")
    with replaced(target) as temporary:
        cut.save(temporary, "PNG")
    if target != image:
        image.unlink()
    cropped = replace(copied, crop=box, cut=file_sha256(target))
    write_record(image.parent, copies | {shown(image.stem): cropped})
    return target


def obstacle(image: Path) -> str:
    """Why a copy isn't cropped: what somebody put beside it would be lost, or not fit any more."""
    mask = next(iter(_beside(image, f"{image.stem}{MASK}")), None)
    if mask is not None:
        return (
            f"{shown(image.name)} isn't cropped, as its mask {shown(mask.name)} wouldn't fit any more; move the mask "
            "away, crop, then make the mask anew."
        )
    return _namesake(image)


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
    """Put a copy back as it was before its crop, byte for byte.

    Returns:
        Its file.

    Raises:
        DatasetError: if it isn't a copy, or another picture has its name.
        FileError: if it can't be put back.
    """
    copies, copied = _copied(image)
    kept = _kept(image)
    if kept is None:
        return image
    target = image.with_name(kept.name)
    if problem := _namesake(image):
        raise DatasetError(problem)
    _set_aside(image, copied)
    try:
        kept.replace(target)
        if target != image:
            image.unlink()
        with suppress(OSError):
            kept.parent.rmdir()  # the last one
    except OSError as error:
        raise FileError(f"{target} can't be put back ({error.strerror}); check the folder's permissions.") from error
    whole = replace(copied, crop=None, cut=file_sha256(target))
    write_record(image.parent, copies | {shown(image.stem): whole})
    return target


def whole_of(image: Path) -> Path:
    """The copy's whole picture: as it was before its crop."""
    return _kept(image) or image


def suggestion(image: Path) -> Box | None:
    """A crop to what is probably the subject; None where that is most of the picture.

    Raises:
        DatasetError: if it can't be read.
    """
    left, top, right, bottom = box = find_subject(read_image(whole_of(image))[0])
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
            "folder with “I just have photos” or the command prepare, then crop the copies."
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
    """A copy that somebody edited after its crop isn't overwritten, but kept in the folder's ``set-aside``."""
    if copied.crop is not None and copied.cut and file_sha256(image) != copied.cut:
        target, number = image.parent / SET_ASIDE / image.name, 2
        while target.exists():
            target, number = target.with_name(f"{image.stem}-{number}{image.suffix}"), number + 1
        with replaced(target) as temporary:
            shutil.copy2(image, temporary)


def _cut(path: Path, box: Box, config: DatasetConfig) -> Image.Image:
    """The part, no larger than copies are; with its transparency where that needs no conversion."""
    whole = read_image(path)[0]
    part = whole.crop(inside := fitted_box(box, whole.size, config))
    if is_plain(path, whole.width * whole.height):
        with Image.open(path) as image:
            if image.mode == "RGBA":
                part = image.crop(inside)
    scale = math.sqrt(LARGEST * LARGEST / (part.width * part.height))
    if scale < 1:
        part = Image.fromarray(resize(part, (round(part.width * scale), round(part.height * scale))))
    return part
