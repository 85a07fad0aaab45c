"""Where the subject of a picture probably is, found without a model: what differs from the picture's rim and has edges,
and faces where OpenCV is there.

``docs/checks.md`` says how right that is, and how it compares with what else was tried.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from PIL import Image

from lora_trainer.errors import ConfigError, quoted

log = logging.getLogger(__name__)

Array = np.ndarray[Any, Any]
Box = tuple[float, float, float, float]  # left, top, right, bottom as shares of the sides

SIDE = 64  # px of each side of the map, whatever the picture's shape
FINE = 256  # px of each side for edges
RIM = 4  # px of the map whose colours are taken for the background's
EVEN = 0.3  # how much a place without edges counts
LEAST = 0.8  # of the map's mean: what a place must have to be worth a larger box
MARGIN = 0.1  # of the box's sides, all around
HEAD = 0.5  # of a face's sides, all around: hair and chin
CASCADE = "haarcascade_frontalface_alt2.xml"
SEEN = 512  # px of the longer side, in which faces are looked for
SMALLEST = 40  # px of a face
NOISE = 1e-4  # variance that is added to the rim's colours: an even background has none


def find_subject(picture: Image.Image) -> Box:
    """The box of what is probably the subject; all of the picture where nothing stands out."""
    seen = salience(picture)
    if not seen.any():
        return (0.0, 0.0, 1.0, 1.0)
    parts = [_grown(best_box(seen - LEAST * seen.mean()), MARGIN), *(_grown(face, HEAD) for face in faces(picture))]
    left, top, right, bottom = zip(*parts, strict=True)
    return (min(left), min(top), max(right), max(bottom))


def faces(picture: Image.Image) -> list[Box]:
    """Faces that look at the camera, by OpenCV's own cascade (Viola and Jones 2001); none without OpenCV, which a WebUI
    has."""
    try:
        import cv2  # type: ignore[import-not-found, unused-ignore]

        grey = np.array(picture.convert("L"))
        scale = SEEN / max(grey.shape)
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        cascade = cv2.CascadeClassifier(cv2.data.haarcascades + CASCADE)
        found = cascade.detectMultiScale(grey, 1.1, 5, minSize=(SMALLEST, SMALLEST))
    except Exception as error:  # not there, or a release without cascades
        log.debug("No faces are looked for: %s", error)
        return []
    height, width = grey.shape
    return [(x / width, y / height, (x + wide) / width, (y + high) / height) for x, y, wide, high in found]


def salience(picture: Image.Image) -> Array:
    """How much each place of [64, 64] differs in colour from the rim, times how many edges there are; 0 or more."""
    return unlike_rim(picture) * (EVEN + edges(picture))


def unlike_rim(picture: Image.Image) -> Array:
    """Distance of each place's colour from those of the rim, in their standard deviations (Mahalanobis); 0 to 1."""
    colours = np.asarray(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX), np.float32) / 255
    grey = colours @ np.array([0.299, 0.587, 0.114], np.float32)
    values = np.stack([grey, 0.7 * (colours[..., 0] - grey), 0.55 * (colours[..., 2] - grey)], -1)
    rim = np.ones((SIDE, SIDE), bool)
    rim[RIM:-RIM, RIM:-RIM] = False
    spread = np.cov(values[rim].T) + NOISE * np.eye(3)
    apart = values - values[rim].mean(0)
    return _scaled(smooth(np.sqrt(np.einsum("ijk,kl,ijl->ij", apart, np.linalg.inv(spread), apart)), 1))


def edges(picture: Image.Image) -> Array:
    """Steps from pixel to pixel around each place of [64, 64]; 0 to 1."""
    grey = np.asarray(picture.convert("L").resize((FINE, FINE), Image.Resampling.BOX), np.float32)
    steps = np.zeros((FINE, FINE), np.float32)
    steps[:-1, :-1] = np.abs(np.diff(grey, axis=0))[:, :-1] + np.abs(np.diff(grey, axis=1))[:-1]
    part = FINE // SIDE
    return _scaled(smooth(steps.reshape(SIDE, part, SIDE, part).mean((1, 3)), 2))


def best_box(gain: Array) -> Box:
    """The box with the largest sum (Bentley 1984, "Algorithm design techniques"), on a grid half as fine as ``gain``'s;
    shares of the sides."""
    size = gain.shape[0] // 2
    coarse = gain.reshape(size, 2, size, 2).mean((1, 3))
    above = np.pad(np.cumsum(coarse, 0), ((1, 0), (0, 0)))
    most, found = -np.inf, (0, 0, size, size)
    for top in range(size):
        rows = above[top + 1 :] - above[top]  # [bottoms, size]: sums of each column
        sums = np.pad(np.cumsum(rows, 1), ((0, 0), (1, 0)))
        best = sums - np.minimum.accumulate(sums, 1)
        bottom, right = np.unravel_index(best.argmax(), best.shape)
        if best[bottom, right] > most:
            most = best[bottom, right]
            found = (int(sums[bottom, : right + 1].argmin()), top, int(right), top + 1 + int(bottom))
    left, top, right, bottom = (side / size for side in found)
    return (left, top, right, bottom)


def smooth(values: Array, reach: int) -> Array:
    """Mean over squares of ``2 * reach + 1``."""
    side = 2 * reach + 1
    sums = np.pad(np.pad(values, reach, mode="edge").cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    return np.asarray(sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]) / side**2


def _grown(box: Box, share: float) -> Box:
    """Larger on each side by a share of its width and height, within the picture."""
    left, top, right, bottom = map(float, box)
    wide, high = share * (right - left), share * (bottom - top)
    return (max(0.0, left - wide), max(0.0, top - high), min(1.0, right + wide), min(1.0, bottom + high))


def _scaled(values: Array) -> Array:
    """From 0 to 1; 0 everywhere where all are equal."""
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high - low > 1e-3 else np.zeros_like(values)


def box_of(given: Any) -> Box:
    """A box as somebody gave it.

    Raises:
        ConfigError: one sentence.
    """
    wrong = ConfigError(
        f"box can't be {quoted(given)}; give left, top, right and bottom as shares of the image, such as 0.1,0,0.9,1."
    )
    try:
        left, top, right, bottom = map(float, given.split(",") if isinstance(given, str) else given)
    except (TypeError, ValueError):
        raise wrong from None
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise wrong
    return (left, top, right, bottom)
