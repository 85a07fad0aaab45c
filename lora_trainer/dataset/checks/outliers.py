"""Which images of a dataset look like none of the others, by their colours and the directions of their edges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lora_trainer.dataset.checks.likeness import unpacked

Array = np.ndarray[Any, Any]

NEIGHBOURS = 3  # images that an image is compared with: those that are most like it
BINS = 8  # of each colour plane, and of the half circle of directions
HALF = 64  # of 128: colours beyond count as that
LEAST_SPREAD = 0.02  # so that images that are all alike don't make a small difference a large one
AT_ONCE = 256  # images that are compared with all others together
FEWEST = 8  # images: fewer don't say what is usual


def oddness(thumbnails: Sequence[bytes]) -> list[float]:
    """How far each image is from those most like it: in median deviations from what is usual in this dataset.

    Args:
        thumbnails: as :func:`lora_trainer.dataset.checks.likeness.thumbnail` makes them.
    """
    if len(thumbnails) < FEWEST:
        return [0.0] * len(thumbnails)
    found = np.stack([descriptor(one) for one in thumbnails])
    colours, edges = found[:, : BINS**2], found[:, BINS**2 :]
    near = np.empty(len(found), np.float32)
    for start in range(0, len(found), AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        far = [apart(part[rows], part) for part in (colours, edges)]
        near[rows] = np.partition(sum(far), NEIGHBOURS, 1)[:, : NEIGHBOURS + 1].sum(1) / NEIGHBOURS  # with itself: 0
    usual = np.median(near)
    return [float(one) for one in (near - usual) / (np.median(np.abs(near - usual)) + LEAST_SPREAD)]


def apart(some: Array, others: Array) -> Array:
    """Hellinger's distance, times √2, of the histograms whose square roots these are: [some, others]."""
    return np.asarray(np.sqrt(np.maximum(0, 2 - 2 * some @ others.T)))


def descriptor(thumbnail: bytes) -> Array:
    """Square roots of two histograms, of colours [64] and of edge directions [8], each with the sum 1."""
    grey, colour = unpacked(thumbnail)
    bins = ((colour.reshape(2, -1) - 128 + HALF) * (BINS / (2 * HALF))).astype(int).clip(0, BINS - 1)
    colours = np.bincount(BINS * bins[0] + bins[1], minlength=BINS**2)
    rows, columns = np.gradient(grey)
    strength, angle = np.hypot(rows, columns), np.arctan2(rows, columns) % np.pi
    turns = np.minimum((angle / np.pi * BINS).astype(int), BINS - 1)
    edges = np.bincount(turns.ravel(), strength.ravel(), BINS)
    return np.sqrt(np.concatenate([part / (part.sum() + 1e-6) for part in (colours, edges)]), dtype=np.float32)
