"""Reads shape, colour, background and position from the pixels of a small picture.

It shares no code and no numbers with the drawing program: names and reference colours are written down here again, and
shapes are polygons of its own, compared by the overlap of size- and place-normalised masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

NONE = "none"
CONCEPT = "zorbo"

COLOURS = {
    "red": "#e11e23",
    "orange": "#ff8c00",
    "yellow": "#fae11e",
    "green": "#1ea53c",
    "cyan": "#1ec8d7",
    "blue": "#2346d7",
    "purple": "#8228b4",
    "pink": "#fa6ebe",
}
BACKGROUNDS = {
    "white": "#f6f6f6",
    "black": "#0e0e0e",
    "gray": "#808080",
    "beige": "#ecd8b4",
    "mint": "#c4eed4",
    "lavender": "#d0c8f2",
}
POSITIONS = {
    "in the center": (0, 0),
    "on the left": (-12, 0),
    "on the right": (12, 0),
    "at the top": (0, -12),
    "at the bottom": (0, 12),
}

COLOUR_LIMIT = 32.0  # Lab distance beyond which a colour has no name
OVERLAP = 0.74  # least overlap of a mask with its template
MARGIN = 0.02  # by which the best template must beat the second
FRAME, REACH = 48, 1.6  # samples of the normalised frame and its half width in units of sqrt(area)


@dataclass(frozen=True)
class Reading:
    """What is in a picture; "none" where nothing fits."""

    shape: str
    colour: str
    background: str
    position: str
    overlap: float  # with the best template, 0..1


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE Lab (D65) of sRGB values (..., 3) in 0..255."""
    c = np.asarray(rgb, dtype=np.float64) / 255
    c = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    matrix = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    xyz = c @ np.array(matrix).T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def name_colour(rgb: np.ndarray, palette: dict[str, str]) -> str:
    """The nearest name of the palette, or "none"."""
    named = np.array([[int(code[i : i + 2], 16) for i in (1, 3, 5)] for code in palette.values()])
    distance = np.linalg.norm(lab(named) - lab(rgb), axis=1)
    return list(palette)[int(distance.argmin())] if distance.min() < COLOUR_LIMIT else NONE


def polygons() -> dict[str, list[list[tuple[float, float]]]]:
    """Outlines in arbitrary units, y down; a second outline is a hole."""
    around = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    disc = [(float(np.cos(a)), float(np.sin(a))) for a in around]
    spikes = [(1.0 if i % 2 == 0 else 0.45, -np.pi / 2 + i * np.pi / 5) for i in range(10)]
    arm = 0.353
    return {
        "circle": [disc],
        "square": [[(-1, -1), (1, -1), (1, 1), (-1, 1)]],
        "triangle": [[(0, -1), (1.06, 0.82), (-1.06, 0.82)]],
        "star": [[(float(r * np.cos(a)), float(r * np.sin(a))) for r, a in spikes]],
        "cross": [
            [
                *((-arm, -1), (arm, -1), (arm, -arm), (1, -arm), (1, arm), (arm, arm)),
                *((arm, 1), (-arm, 1), (-arm, arm), (-1, arm), (-1, -arm), (-arm, -arm)),
            ]
        ],
        "ring": [disc, [(0.486 * x, 0.486 * y) for x, y in disc]],
        CONCEPT: [[(-0.88, -1), (0.88, -1), (0.18, 0), (0.88, 1), (-0.88, 1), (-0.18, 0)]],
    }


def normalise(cover: np.ndarray) -> np.ndarray:
    """Resample a coverage map (h, w) to (FRAME, FRAME), centred on its centroid and scaled by the root of its area."""
    height, width = cover.shape
    area = cover.sum()
    cy = (cover.sum(1) * np.arange(height)).sum() / area
    cx = (cover.sum(0) * np.arange(width)).sum() / area
    steps = (np.arange(FRAME) + 0.5) / FRAME * 2 - 1
    y, x = np.meshgrid(cy + steps * REACH * area**0.5 / 2, cx + steps * REACH * area**0.5 / 2, indexing="ij")
    padded = np.pad(cover, 1)
    y, x = np.clip(y + 1, 0, height + 0.999), np.clip(x + 1, 0, width + 0.999)
    i, j = y.astype(int), x.astype(int)
    v, u = y - i, x - j
    top = padded[i, j] * (1 - u) + padded[i, j + 1] * u
    return top * (1 - v) + padded[i + 1, j] * (1 - u) * v + padded[i + 1, j + 1] * u * v


@cache
def templates() -> dict[str, np.ndarray]:
    """Normalised coverage of every shape."""
    return {name: drawn(outlines, 170) for name, outlines in polygons().items()}


def drawn(outlines: Sequence[Sequence[tuple[float, float]]], radius: float) -> np.ndarray:
    """Normalised coverage of a shape of one outline, or of one with a hole."""
    canvas = Image.new("L", (512, 512))
    pen = ImageDraw.Draw(canvas)
    for outline, fill in zip(outlines, (255, 0), strict=False):
        pen.polygon([(256 + radius * x, 256 + radius * y) for x, y in outline], fill=fill)
    return normalise(np.asarray(canvas.resize((128, 128), Image.Resampling.BOX), dtype=np.float64) / 255)


def largest_part(mask: np.ndarray) -> np.ndarray:
    """The largest 8-connected part of a boolean mask."""
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        padded = np.pad(labels, 1)
        near = [padded[i : i + mask.shape[0], j : j + mask.shape[1]] for i in range(3) for j in range(3)]
        spread = np.where(mask, np.max(near, axis=0), 0)
        if (spread == labels).all():
            break
        labels = spread
    values, counts = np.unique(labels[mask], return_counts=True)
    return labels == values[counts.argmax()]


def read_shape(cover: np.ndarray) -> tuple[str, float]:
    """Name and overlap of the best template, or "none" with that overlap."""
    mask = cover > 0.5
    if not 200 <= mask.sum() <= 1800:
        return NONE, 0.0
    part = largest_part(mask)
    if part.sum() < 0.85 * mask.sum():
        return NONE, 0.0
    others = mask & ~part
    seen = normalise(np.where(others, 0.0, np.clip(2 * cover - 0.5, 0, 1)))
    scores = {name: np.minimum(seen, t).sum() / np.maximum(seen, t).sum() for name, t in templates().items()}
    best, second = sorted(scores, key=scores.__getitem__, reverse=True)[:2]
    sure = scores[best] >= OVERLAP and scores[best] - scores[second] >= MARGIN
    return (best if sure else NONE), float(scores[best])


def read(picture: Image.Image) -> Reading:
    """Read one picture of any size (it is shrunk to 64 px)."""
    picture = picture.convert("RGB")
    if picture.size != (64, 64):
        picture = picture.resize((64, 64), Image.Resampling.BOX)
    rgb = np.asarray(picture, dtype=np.float64)
    border = np.concatenate([rgb[:2].reshape(-1, 3), rgb[-2:].reshape(-1, 3)])
    border = np.concatenate([border, rgb[:, :2].reshape(-1, 3), rgb[:, -2:].reshape(-1, 3)])
    ground = np.median(border, axis=0)
    background = name_colour(ground, BACKGROUNDS)
    distance = np.linalg.norm(lab(rgb) - lab(ground), axis=-1)
    top = np.quantile(distance, 0.95)
    if top < 15:
        return Reading(NONE, NONE, background, NONE, 0.0)
    ink = np.median(rgb[distance > 0.8 * top], axis=0)
    axis = ink - ground
    cover = ((rgb - ground) @ axis) / (axis @ axis)
    mask = cover > 0.5
    colour = name_colour(np.median(rgb[cover > 0.8], axis=0), COLOURS) if (cover > 0.8).any() else NONE
    shape, overlap = read_shape(cover)
    if not mask.any():
        return Reading(shape, colour, background, NONE, overlap)
    y, x = np.nonzero(mask)
    place = np.array([x.mean() - 31.5, y.mean() - 31.5])
    position = min(POSITIONS, key=lambda name: float(np.linalg.norm(place - np.array(POSITIONS[name]))))
    return Reading(shape, colour, background, position, overlap)
