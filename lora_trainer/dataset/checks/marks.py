"""Marks that nearly all images have at the same place, such as a watermark, a date or a logo."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np
from PIL import Image

from lora_trainer.dataset.checks.limits import SAME_PLACE
from lora_trainer.dataset.subject import Box, smooth

Array = np.ndarray[Any, Any]

SIDE = 128  # px of each side of the map, whatever the picture's shape
STROKE, AROUND = 1, 4  # px: how far around a place its own brightness, and what is usual there, are measured
NOISE = 3.0  # of 255: contrast that is nothing
CLEAR = 0.25  # of the usual contrast there: what a mark has
FEWEST = 12  # images: fewer have something at the same place by chance
CHANCE = 3.4  # standard deviations beyond which chance hardly comes: fine textures have marks everywhere
DENSE = 5  # of the nine places around one that is a part of a mark
LEAST = 4  # places of a mark
MOST = 0.1  # of the picture: what is the same in more of it is what the pictures show


def marks(picture: Image.Image) -> bytes:
    """Where a picture is lighter, and where it is darker, than close around: two planes of [128, 128] bits."""
    grey = np.asarray(picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)
    apart = grey - smooth(grey, STROKE)
    usual = np.sqrt(np.maximum(0, smooth(apart**2, AROUND))) + NOISE
    return np.packbits(np.stack([apart > CLEAR * usual, apart < -CLEAR * usual])).tobytes()


def common(packed: Sequence[bytes]) -> tuple[Box | None, list[float]]:
    """The box around the marks that nearly all of some pictures of one shape have at the same place, and the share of
    them that each picture has, 0 to 1. None where there are no such marks, where there are few pictures, and where much
    of the pictures is the same.

    Args:
        packed: as :func:`marks` makes them.
    """
    count = len(packed)
    nothing = None, [0.0] * count
    if count < FEWEST:
        return nothing
    sums = np.zeros((2, SIDE, SIDE), int)
    for one in packed:
        sums += _unpacked(one)
    often = sums.mean() / count  # how often a place is lighter, or darker, by chance
    by_chance = often * count + CHANCE * (often * (1 - often) * count) ** 0.5
    shared = sums >= ceil(max(SAME_PLACE.value * count, by_chance))
    shared &= 9 * smooth((shared[0] | shared[1]).astype(float), 1) > DENSE - 0.5
    places = shared[0] | shared[1]
    if not LEAST <= np.count_nonzero(places) <= MOST * places.size:
        return nothing
    rows, columns = np.flatnonzero(places.any(1)), np.flatnonzero(places.any(0))
    left, top, right, bottom = (float(edge) / SIDE for edge in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    return (left, top, right, bottom), [float(_unpacked(one)[shared].mean()) for one in packed]


def _unpacked(packed: bytes) -> Array:
    return np.unpackbits(np.frombuffer(packed, np.uint8)).reshape(2, SIDE, SIDE).astype(bool)
