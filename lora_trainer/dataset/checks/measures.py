"""Measures of one image, as pure functions of its pixels.

:mod:`lora_trainer.dataset.checks.limits` says what they mean. Pictures are uint8: colour [H, W, 3], grey [H, W].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]

WINDOW = 11  # px of the second blur, as in Crété's paper
TILES = 4  # each way: the sharpest of them count, so that a blurred background doesn't make a picture a blurred one
TEXTURE = 0.7  # of 255: the mean step from pixel to pixel below which a tile shows nothing that could be sharp
SHARPEST = 0.1  # the quantile of the tiles that speaks for the picture
WHITE = 250  # of 255
EVEN = 12  # of 255: how far the pixels of a border's row may be from each other
APART = 16  # of 255: how far a picture's pixel is from its border at least
MOST_BORDER = 0.45  # of a side: what is even beyond that is no border but the picture


K1 = (
    10,
    11,
    12,
    12,
    13,
    14,
    14,
    14,
    16,
    16,
    16,
    17,
    18,
    19,
    22,
    22,
    24,
    24,
    24,
    26,
    29,
    35,
    37,
    40,
)  # sorted: scaling keeps the order
FINEST = len(K1)  # entries that are compared: the larger ones end at 255, however low the quality


class Exposure(NamedTuple):
    """Where the brightness of a picture lies, each from 0 to 1."""

    shadows: float  # 5 % of the pixels are darker
    lights: float  # 1 % of the pixels are brighter
    clipped: float  # share of the pixels of which a channel is at its end
    outline: float  # share of the outermost pixels that are white: an object before white is no over-exposed picture


class Borders(NamedTuple):
    """Even stripes at the sides, as shares of width and height."""

    left: float
    top: float
    right: float
    bottom: float


def blur(grey: Array) -> float:
    """How blurred a picture is where it is sharpest, 0 (sharp) to 1; 0 where nothing has any texture.

    A picture that is sharp changes when it is blurred, a blurred one hardly does (Crété, Dolmiere, Ladret and Nicolas
    2007, "The blur effect: perception and estimation with a new no-reference perceptual blur metric").
    """
    found = []
    for axis in (0, 1):
        step, again = _steps(grey, axis)
        steps, lost = _tiles(step), _tiles(np.maximum(step - again, 0))
        found.append(np.where(steps > WINDOW * TEXTURE, 1 - lost / np.maximum(steps, 1e-6), -1))
    worse = np.maximum(*found)
    tiles = worse[worse >= 0]
    return float(np.quantile(tiles, SHARPEST)) if tiles.size else 0.0


def _steps(grey: Array, axis: int) -> tuple[Array, Array]:
    """The steps from pixel to pixel along an axis, before and after a mean over ``WINDOW`` pixels; ``WINDOW`` times as
    large, so that they are whole numbers, int16.

    The means of two neighbours differ by the pixel that comes into the window and the one that leaves it.
    """
    half, count = WINDOW // 2, grey.shape[axis] - 1
    values = grey.astype(np.int16)
    wide = np.pad(values, [(half, half) if side == axis else (0, 0) for side in (0, 1)], mode="symmetric")

    def apart(of: Array, distance: int) -> Array:
        if axis == 0:
            return np.abs(of[distance : distance + count] - of[:count])
        return np.abs(of[:, distance : distance + count] - of[:, :count])

    return apart(values, 1) * np.int16(WINDOW), apart(wide, WINDOW)


def _tiles(values: Array) -> Array:
    """Means over ``TILES`` x ``TILES`` tiles of whole numbers; fewer tiles where the picture has fewer pixels."""
    rows, columns = (np.unique(np.linspace(0, side, TILES + 1).astype(int)) for side in values.shape)
    sums = np.stack([values[top:bottom].sum(0, dtype=np.int32) for top, bottom in pairwise(rows)])
    sums = np.add.reduceat(sums, columns[:-1], axis=1)
    return np.asarray(sums / np.outer(np.diff(rows), np.diff(columns)))


def exposure(colour: Array, grey: Array) -> Exposure:
    """Shadows, lights, what is clipped, and whether the picture lies on white."""
    shadows, lights = _quantiles(grey, (0.05, 0.99)) / 255
    outline = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    ends = colour >= WHITE
    clipped = np.count_nonzero(ends[..., 0] | ends[..., 1] | ends[..., 2]) / grey.size
    return Exposure(float(shadows), float(lights), float(clipped), float((outline >= WHITE).mean()))


def _quantiles(grey: Array, shares: Sequence[float]) -> Array:
    """As :func:`numpy.quantile`, from how often each value occurs: nothing is sorted."""
    below = np.cumsum(np.bincount(grey.ravel(), minlength=256))
    at = np.array(shares) * (grey.size - 1)
    low, high = (np.searchsorted(below, place, side="right") for place in (np.floor(at), np.ceil(at)))
    return np.asarray(low + (high - low) * (at % 1))


def borders(colour: Array) -> Borders:
    """Stripes of one colour whose inner edge runs along the whole side.

    An object before an even background is no border: where the background ends, only a part of the row changes.
    """
    height, width = colour.shape[:2]
    columns = colour.swapaxes(0, 1)
    return Borders(
        _stripe(columns) / width,
        _stripe(colour) / height,
        _stripe(columns[::-1]) / width,
        _stripe(colour[::-1]) / height,
    )


def _stripe(rows: Array) -> int:
    """How many of the first rows are a border."""
    first = np.median(rows[0], axis=0)
    most = int(len(rows) * MOST_BORDER)
    count = next((n for n in range(most) if (_apart(rows[n], first) <= EVEN).mean() < 0.99), most)
    if not 0 < count < most:
        return 0
    inside = _apart(rows[min(count + 2, len(rows) - 1)], first) > APART
    return count if inside.mean() >= 0.5 else 0


def _apart(row: Array, colour: Array) -> Array:
    """How far the pixels of a row are from a colour, in the channel where it is farthest."""
    return np.asarray(np.abs(row.astype(np.int16) - colour).max(axis=1))


def jpeg_quality(tables: Mapping[int, Sequence[int]]) -> int | None:
    """The quality, 1 to 100, at which libjpeg would use such a table for brightness; None where no quality comes near.

    libjpeg scales the example table of the JPEG standard (ITU-T T.81, table K.1): jpeg_quality_scaling in jcparam.c.
    """
    table = tables.get(0)
    if table is None or len(table) != 64:
        return None
    scale = 100 * sum(sorted(table)[:FINEST]) / sum(K1)
    quality = 5000 / scale if scale > 100 else (200 - scale) / 2
    return round(min(100, max(1, quality)))


def two_toned(grey: Array) -> float:
    """Share of the pixels that are black or white; a mask has hardly any others."""
    return float(np.count_nonzero((grey <= 8) | (grey >= 247)) / grey.size)
