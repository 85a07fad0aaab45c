"""The independent judge's eyes: what a small picture shows, from its pixels alone.

Outlines, colours and thresholds are written down here again; nothing of the drawing program or of the measures is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from tests.demo import world_reader
from tests.demo.world_reader import BACKGROUNDS, COLOURS, NONE, POSITIONS, lab, largest_part, name_colour, normalise

OVERLAP, MARGIN = 0.72, 0.015


@dataclass(frozen=True)
class Seen:
    """What is in a picture; "none" where nothing fits. ``look``: flat, halves, belt, squashed or horizon."""

    shape: str
    look: str
    colour: str
    background: str
    position: str
    mark: bool  # a small white or black square in the upper left corner
    broken: bool  # not a picture of this world: no plain background, or nothing that could be a shape


def outlines() -> dict[str, list[list[tuple[float, float]]]]:
    """The new shapes in arbitrary units, y down; a second outline is cut out."""
    around = np.linspace(0, np.pi, 40)
    outer = [(1.0 * np.cos(a), -1.0 * np.sin(a)) for a in around]
    inner = [(0.486 * np.cos(a), -0.486 * np.sin(a)) for a in around]
    full = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    return {
        "arch": [[*outer, (-1, 0.91), (1, 0.91)], [*inner, (-0.486, 1.2), (0.486, 1.2)]],
        "tee": [
            [(-1, -0.95), (1, -0.95), (1, -0.35), (0.33, -0.35), (0.33, 1), (-0.33, 1), (-0.33, -0.35), (-1, -0.35)]
        ],
        "ell": [[(-1, -1.1), (-0.3, -1.1), (-0.3, 0.33), (1, 0.33), (1, 1), (-1, 1)]],
        "crescent": [
            [(np.cos(a), np.sin(a)) for a in full], [(0.556 + 0.778 * np.cos(a), 0.778 * np.sin(a)) for a in full]
        ],
        "arrow": [[(-1, -0.32), (0.06, -0.32), (0.06, -0.94), (1.06, 0), (0.06, 0.94), (0.06, 0.32), (-1, 0.32)]],
        "cup": [
            [(-1, -0.9), (-0.47, -0.9), (-0.47, 0.41), (0.47, 0.41), (0.47, -0.9), (1, -0.9), (1, 0.94), (-1, 0.94)]
        ],
        "chevron": [[(0, -0.18), (1, -0.94), (1, 0), (0, 0.88), (-1, 0), (-1, -0.94)]],
        "half disc": [[(np.cos(a), np.sin(a)) for a in around]],
        "steps": [
            [(-1, -0.94), (-0.35, -0.94), (-0.35, -0.3), (0.35, -0.3), (0.35, 0.35), (1, 0.35), (1, 0.94), (-1, 0.94)]
        ],
    }  # fmt: skip


@cache
def templates() -> dict[str, np.ndarray]:
    """Normalised coverage of every shape, known and new."""
    result = {
        ("hourglass" if name == world_reader.CONCEPT else name): t for name, t in world_reader.templates().items()
    }
    return result | {name: world_reader.drawn(parts, 150) for name, parts in outlines().items()}


def read(picture: Image.Image) -> Seen:
    """Read one picture of any size (it is shrunk to 64 px)."""
    picture = picture.convert("RGB")
    if picture.size != (64, 64):
        picture = picture.resize((64, 64), Image.Resampling.BOX)
    rgb = np.asarray(picture, dtype=np.float64)
    colours = lab(rgb)
    ground, uneven = _ground(rgb)
    background = name_colour(ground, BACKGROUNDS)
    distance = np.linalg.norm(colours - lab(ground), axis=-1)
    mark = _mark(rgb, ground)
    if mark:
        distance[:12, :12] = 0.0
    earth = _earth(colours)
    if earth is not None:
        distance[earth] = 0.0
    top = np.quantile(distance, 0.95)
    broken = uneven > 14
    if top < 15:
        return Seen(NONE, "flat", NONE, background, NONE, mark, broken)
    cover = np.clip(distance / top, 0, 1)
    mask = largest_part(cover > 0.5)
    if mask.sum() < 80:
        return Seen(NONE, "flat", NONE, background, NONE, mark, True)
    look = "horizon" if earth is not None else _look(colours, mask)
    shape, squashed = _shape(mask)
    if squashed and look == "flat":
        look = "squashed"
    ink = mask & (distance > 0.6 * top)
    if look == "halves":
        ink &= _left_of_middle(mask)
    if look == "belt":
        ink &= ~_middle_rows(mask)
    colour = name_colour(np.median(rgb[ink], axis=0), COLOURS) if ink.any() else NONE
    y, x = np.nonzero(mask)
    place = np.array([(x.min() + x.max()) / 2 - 31.5, (y.min() + y.max()) / 2 - 31.5])
    position = min(POSITIONS, key=lambda name: float(np.linalg.norm(place - np.array(POSITIONS[name]))))
    return Seen(shape, look, colour, background, position, mark, broken)


def _ground(rgb: np.ndarray) -> tuple[np.ndarray, float]:
    """Colour of the background and how uneven it is along the border of the upper part (Lab)."""
    rim = np.concatenate([part.reshape(-1, 3) for part in (rgb[:2], rgb[:44, :2], rgb[:44, -2:])])
    ground = np.median(rim, axis=0)
    return ground, float(np.quantile(np.linalg.norm(lab(rim) - lab(ground), axis=-1), 0.8))


def _mark(rgb: np.ndarray, ground: np.ndarray) -> bool:
    """A square of about 7 px in the upper left corner, black or white against the ground."""
    inner, around = rgb[4:8, 4:8].reshape(-1, 3).mean(0), rgb[13:17, 1:17].reshape(-1, 3).mean(0)
    far = np.linalg.norm(lab(inner) - lab(ground)) > 30
    return bool(far and np.linalg.norm(lab(around) - lab(ground)) < 25 and np.ptp(inner) < 70)


def _earth(colours: np.ndarray) -> np.ndarray | None:
    """The brown lower part, if the picture has one from side to side."""
    brown = np.linalg.norm(colours - np.array([36.5, 16.0, 34.0]), axis=-1) < 26
    low = brown[54:, :]
    return (
        np.where(np.arange(64)[:, None] >= 46, brown, False) if low.mean() > 0.55 and brown[:40].mean() < 0.3 else None
    )


def _left_of_middle(mask: np.ndarray) -> np.ndarray:
    x = np.nonzero(mask)[1]
    return np.broadcast_to(np.arange(64) < (x.min() + x.max()) / 2 - 2, mask.shape)


def _middle_rows(mask: np.ndarray, half: float = 5.5) -> np.ndarray:
    y = np.nonzero(mask)[0]
    middle = (y.min() + y.max()) / 2
    return np.broadcast_to((abs(np.arange(64) - middle) < half)[:, None], mask.shape)


def _look(colours: np.ndarray, mask: np.ndarray) -> str:
    """Whether the right half is darker, or a grey belt lies across the middle."""
    left = mask & _left_of_middle(mask)
    right = mask & ~_left_of_middle(mask)
    if left.sum() > 30 and right.sum() > 30:
        light = np.median(colours[left][:, 0]) - np.median(colours[right][:, 0])
        if light > 12:
            return "halves"
    belt, rest = mask & _middle_rows(mask, 3), mask & ~_middle_rows(mask, 7)
    if belt.sum() > 20 and rest.sum() > 30:
        chroma = np.hypot(*np.moveaxis(colours[..., 1:], -1, 0))
        if np.median(chroma[belt]) < 0.6 * np.median(chroma[rest]):
            return "belt"
    return "flat"


def _shape(mask: np.ndarray) -> tuple[str, bool]:
    """Name of the best template, and whether the shape is squashed."""
    if not 100 <= mask.sum() <= 2000:
        return NONE, False
    found = {}
    for squash in (1.0, 0.55):
        tall = mask.astype(float)
        if squash != 1.0:
            tall = np.asarray(Image.fromarray(tall.astype(np.float32)).resize((64, 116), Image.Resampling.BILINEAR))
        seen = normalise(np.asarray(tall, dtype=np.float64))
        for name, t in templates().items():
            found[name, squash] = np.minimum(seen, t).sum() / np.maximum(seen, t).sum()
    best = max(found, key=found.__getitem__)
    second = max(score for (name, _), score in found.items() if name != best[0])
    if found[best] < OVERLAP or found[best] - second < MARGIN:
        return NONE, False
    return best[0], best[1] != 1.0
