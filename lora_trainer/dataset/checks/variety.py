"""Whether the images of a dataset lack variety: how alike what is around their subjects is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import ceil
from typing import Any

import numpy as np

from lora_trainer.dataset.checks.likeness import COLOURS, THUMBNAIL, unpacked
from lora_trainer.dataset.checks.limits import ONE_BACKGROUND
from lora_trainer.dataset.checks.outliers import apart

Array = np.ndarray[Any, Any]

FEWEST = 8  # images: of fewer it is no wonder that they are alike
RIM = 2  # of the 16 px of a colour plane's sides: what is taken for the background
LEVELS = (6, 12, 12)  # bins of grey, and of the two planes of colour
HALF = 48  # of 128: colours beyond count as that
COLOURFUL = 12  # of 255: the two planes' distance from grey, together, from which a background is fully coloured
GREY = 0.5  # what is far in black and white, where less can differ, as a share of what is far in colour
AT_ONCE = 256  # images that are compared with all others together


def apart_from_usual(thumbnails: Sequence[bytes]) -> list[float]:
    """How far each image's background, by its colours, is from the one that nearly all images are nearest to; 0 (the
    same) to √2 (nothing in common), and twice that in black and white. Nothing is usual among fewer than ``FEWEST``
    images: then all are √2 apart.

    Args:
        thumbnails: as :func:`lora_trainer.dataset.checks.likeness.thumbnail` makes them.
    """
    count = len(thumbnails)
    if count < FEWEST:
        return [float(np.sqrt(2))] * count
    rims = [_rim(one) for one in thumbnails]
    found = np.stack([histogram(one) for one in rims])
    most, usual = ceil(ONE_BACKGROUND.value * (count - 1)), np.empty(count, np.float32)
    for start in range(0, count, AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        usual[rows] = np.partition(apart(found[rows], found), most, 1)[:, most]  # with itself, which is 0 apart
    coloured = min(1.0, float(np.median([np.abs(one[1:] - 128).sum(0).mean() for one in rims])) / COLOURFUL)
    far = GREY + (1 - GREY) * coloured
    return [float(one) / far for one in apart(found[usual.argmin()][None], found)[0]]


def _rim(thumbnail: bytes) -> Array:
    """Grey and the two planes of colour along a picture's rim, 0 to 255: [3, pixels]."""
    grey, planes = unpacked(thumbnail)
    part = THUMBNAIL // COLOURS
    rim = np.ones((COLOURS, COLOURS), bool)
    rim[RIM:-RIM, RIM:-RIM] = False
    return np.stack([grey.reshape(COLOURS, part, COLOURS, part).mean((1, 3)), *planes])[:, rim]


def histogram(colours: Array) -> Array:
    """Square roots of how often there is each of so many colours [3, pixels], with the sum 1: [864] float32.

    A colour between two bins counts for both, by its distance, so that a little more light doesn't change much.
    """
    low, width = np.array([[0], [128 - HALF], [128 - HALF]]), np.array([[256], [2 * HALF], [2 * HALF]])
    bins = np.array(LEVELS)[:, None]
    at = np.clip((colours - low) / width * bins - 0.5, 0, bins - 1)
    first, share = np.floor(at).astype(int), at % 1
    corners = np.array(list(product((0, 1), repeat=3)))[..., None]
    weights = np.where(corners, share, 1 - share).prod(1)  # [8, pixels]
    places = np.ravel_multi_index(tuple(np.minimum(first + corners, bins - 1).swapaxes(0, 1)), LEVELS)
    found = np.bincount(places.ravel(), weights.ravel(), np.prod(LEVELS))
    return np.sqrt(found / colours.shape[1]).astype(np.float32)
