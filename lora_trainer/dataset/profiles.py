"""Colour profiles: pictures from phones and cameras in a wider colour space, brought to the sRGB that models know."""

from __future__ import annotations

import io
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from PIL import Image, ImageCms

LATTICE = (0, 36, 73, 109, 146, 182, 219, 255)
SAME = 2  # of 255: a profile that moves no colour further is sRGB under another name, and rounding isn't worth a change
MODES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}  # Pillow's mode -> the profile's word for it


def to_srgb(image: Image.Image, profile: object) -> Image.Image:
    """The picture's colours in sRGB as its profile means them; as it is without a profile that can be used.

    Args:
        image: of mode L, RGB or CMYK; any other mode is left alone.
        profile: the bytes of an ICC profile; anything else counts as none.
    """
    if not isinstance(profile, bytes) or not profile or image.mode not in MODES:
        return image
    transform = _transform(profile, image.mode)
    if transform is None:
        return image
    try:
        converted = ImageCms.applyTransform(image, transform)
    except (ImageCms.PyCMSError, ValueError, OSError):
        return image
    return image if converted is None else converted


def changes_colours(profile: object, mode: str) -> bool:
    """Whether a picture of that mode means other colours than sRGB's."""
    if mode == "CMYK":
        return True
    return isinstance(profile, bytes) and bool(profile) and mode in MODES and _transform(profile, mode) is not None


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> Any:
    """From the profile to sRGB; None if it is broken, meant for another mode, or sRGB itself."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != MODES[mode]:
            return None
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        return None if mode == "RGB" and _changes_nothing(transform) else transform
    except (ImageCms.PyCMSError, ImportError, OSError, ValueError, TypeError, AttributeError):
        return None  # the pixels are whole, and are trained as they are


def _changes_nothing(transform: Any) -> bool:
    colours = np.array(list(product(LATTICE, repeat=3)), np.uint8)[None]
    converted = ImageCms.applyTransform(Image.fromarray(colours, "RGB"), transform)
    assert converted is not None  # only in-place conversion gives None
    return bool(np.abs(np.asarray(converted).astype(int) - colours).max() <= SAME)
