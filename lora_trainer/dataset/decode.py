"""Opening any image that Pillow can open: which files are images, whether they are whole, and their true pixels."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
from PIL import Image, ImageCms, ImageFile

from lora_trainer.dataset.buckets import Size
from lora_trainer.dataset.png import pixels_only
from lora_trainer.dataset.profiles import MODES, changes_colours, to_srgb
from lora_trainer.errors import DatasetError

T = TypeVar("T")
Quantisation = Mapping[int, Sequence[int]]  # tables by number; none where it isn't a JPEG

_NO_PICTURES = {"BUFR", "GRIB", "HDF5", "IPTC", "MPEG"}  # Pillow recognises these but can't show them
_ORIENTATION = 0x0112  # EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

MOST_PIXELS = 300_000_000  # of an image that is read; Pillow takes what has more than 179 million for a trap
LARGE = 64_000_000  # px: of larger ones only one is decoded at a time, since each takes GB
ANIMATED = (".gif", ".webp", ".apng")

_lock = threading.Lock()
_large = threading.Lock()
_strict_users = 0
_before: tuple[bool, int | None] = (False, None)


@contextmanager
def strict_decoding() -> Iterator[None]:
    """Make Pillow refuse truncated files, also where another extension told it to fill them up with grey, and read the
    largest that a camera makes, but nothing beyond.

    The switches are Pillow's own and global, so they are put back as soon as the last user is done.
    """
    global _strict_users, _before
    with _lock:
        if _strict_users == 0:
            _before = (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS)
            ImageFile.LOAD_TRUNCATED_IMAGES = False
            Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2  # it warns from there on, and refuses twice as much
        _strict_users += 1
    try:
        yield
    finally:
        with _lock:
            _strict_users -= 1
            if _strict_users == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = _before


@lru_cache(maxsize=1)
def image_endings() -> frozenset[str]:
    """Lower-case file endings, with the dot, of the formats that this Pillow can open, with the plug-ins that there are
    for the photos of phones."""
    with suppress(ImportError):
        import_module("pillow_heif").register_heif_opener()
    with suppress(ImportError):
        import_module("pillow_jxl")  # registers itself
    return frozenset(
        ending.lower()
        for ending, name in Image.registered_extensions().items()
        if name in Image.OPEN and name not in _NO_PICTURES
    )


@lru_cache(maxsize=1 << 16)
def probe(path: Path, file_size: int, changed_ns: int) -> Size:
    """Decode a file once to see that it is whole; remembered as long as its size and time of change are the same.

    Returns:
        (width, height) after EXIF rotation.

    Raises:
        DatasetError: the end of a sentence that begins with the file's name and says why it can't be used.
    """
    if file_size == 0:
        raise DatasetError("is an empty file; copy it again or delete it.")
    try:
        return _opened(path, _true_size)
    except Exception as error:  # Pillow's plugins raise anything, from SyntaxError to zlib.error, on a damaged file
        raise DatasetError(_unreadable(error)) from error


def _true_size(image: Image.Image) -> Size:
    size = image.size
    drafted = image.draft("RGB", (image.width // 8, image.height // 8))  # JPEG: all is read, an eighth computed
    image.load()
    if not drafted:
        size = image.size  # some formats know it only now
    return (size[1], size[0]) if _orientation(image) in {5, 6, 7, 8} else size


def read_image(path: Path) -> tuple[Image.Image, Image.Image | None]:
    """The first frame, upright, as sRGB on white, and its alpha channel (mode L) if it has one.

    Raises:
        DatasetError: names the file and why it can't be read.
    """
    try:
        return _opened(path, _upright)
    except Exception as error:  # see probe
        raise DatasetError(f"{path} {_unreadable(error)}") from error


def is_plain(path: Path, area: int) -> bool:
    """Whether a readable image is fit to be copied as it is: one PNG or JPEG frame, upright, its colours sRGB, of no
    more than ``area`` pixels."""

    def plain(image: Image.Image) -> bool:
        size = image.width * image.height
        if image.format not in ("PNG", "JPEG") or getattr(image, "n_frames", 1) > 1 or size > area:
            return False
        return _orientation(image) == 1 and not changes_colours(image.info.get("icc_profile"), image.mode)

    return _opened(path, plain)


def read_small(path: Path, area: int) -> tuple[Size, Image.Image, Quantisation]:
    """The size of an image as :func:`read_image` gives it, its pixels at ``area`` pixels or its own size if that is
    less, and a JPEG's quantisation tables; a JPEG is decoded at a fraction of its size.

    Raises:
        DatasetError: the end of a sentence, as of :func:`probe`.
    """
    try:
        return _opened(path, lambda image: _small(image, area))
    except Exception as error:  # see probe
        raise DatasetError(_unreadable(error)) from error


def _small(image: Image.Image, area: int) -> tuple[Size, Image.Image, Quantisation]:
    size, tables = image.size, dict(getattr(image, "quantization", None) or {})
    scale = min(1.0, math.sqrt(area / (size[0] * size[1])))
    drafted = image.draft("RGB", (math.ceil(size[0] * scale), math.ceil(size[1] * scale)))
    upright, _ = _upright(image)
    if not drafted:
        size = image.size  # some formats know it only now
    if _orientation(image) in {5, 6, 7, 8}:
        size = (size[1], size[0])
    small = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
    if upright.size != small:
        upright = upright.resize(small, Image.Resampling.BOX)  # the mean of the area, as images are made smaller here
    return size, upright, tables


def _upright(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    image.load()
    turn = _TURNS.get(_orientation(image))
    colour, alpha = _split_alpha(image)
    if turn is not None:
        colour, alpha = colour.transpose(turn), alpha and alpha.transpose(turn)
    return colour, alpha


def _opened(path: Path, use: Callable[[Image.Image], T]) -> T:
    """What ``use`` makes of the opened image; of a PNG whose notes Pillow refuses, of its pixels alone."""
    try:
        return _used(path, use)
    except Image.DecompressionBombError:
        raise
    except Exception:  # see probe
        pixels = pixels_only(path)
        if pixels is None:
            raise
        return _used(pixels, use)


def _used(source: Path | IO[bytes], use: Callable[[Image.Image], T]) -> T:
    with strict_decoding(), Image.open(source) as image:
        if image.width * image.height <= LARGE:
            return use(image)
        with _large:
            return use(image)


def is_animated(path: Path) -> bool:
    """Whether a readable image has more frames than the one that is used; asked of the formats that people animate."""
    return path.suffix.lower() in ANIMATED and _opened(path, lambda image: bool(getattr(image, "is_animated", False)))


def _orientation(image: Image.Image) -> int:
    """EXIF orientation of a loaded image, 1 to 8; 1 is upright."""
    if image.format == "TIFF":
        return 1  # Pillow turns these itself as it loads them
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF data in a good image: take it as upright
        return 1


def _unreadable(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        most = f"{MOST_PIXELS // 10**6} megapixels"
        return f"is larger than the {most} that are read here; make it smaller, or delete it if it is no real image."
    words = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if isinstance(error, Image.UnidentifiedImageError):
        words = "it is in no format that Pillow knows"
    return f"can't be read as an image ({words}); re-export it as PNG or JPEG, or delete it."


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """RGB composited on white, and the alpha channel; every Pillow mode."""
    if image.mode.startswith(("I", "F")):
        return _deep_grey(image).convert("RGB"), None
    if image.mode == "LAB":
        lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, rgb, outputMode="RGB")
        assert converted is not None  # only in-place conversion gives None
        return converted, None
    profile = image.info.get("icc_profile")
    if not _has_alpha(image):
        plain = image if image.mode in MODES else image.convert("RGB")
        converted = to_srgb(plain, profile)
        return converted if converted.mode == "RGB" else converted.convert("RGB"), None  # a conversion copies
    rgba = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
    alpha = rgba.getchannel("A")
    converted = to_srgb(rgba.convert("RGB"), profile)
    converted.putalpha(alpha)
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, converted).convert("RGB"), alpha


def _has_alpha(image: Image.Image) -> bool:
    if image.mode in {"RGBA", "RGBa", "LA", "La", "PA"} or "transparency" in image.info:
        return True
    return image.mode == "P" and image.palette is not None and image.palette.mode.endswith("A")


def _deep_grey(image: Image.Image) -> Image.Image:
    """Grey with more than 8 bits as 8 bits, scaled by its format's range (Pillow's own conversion would clip).

    Integers are 16-bit unless larger values occur; floats are 0…1, 0…255 or 0…65535, whichever holds the maximum.
    """
    values = np.asarray(image, dtype=np.float64)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    top = float(values.max(initial=0.0))
    ranges = (1.0, 255.0, 65535.0) if image.mode.startswith("F") else (65535.0,)
    full = next((limit for limit in ranges if top <= limit), top)
    return Image.fromarray(np.clip(values * (255.0 / full) + 0.5, 0, 255).astype(np.uint8), "L")
