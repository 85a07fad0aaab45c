"""What the calibration's LoRAs learn: shapes, patterns and styles that the embedded checkpoint has no words for.

The drawings are made from signed distances, as the known world's are. Whoever reads the pictures back
(:mod:`tests.calibration.reader`) shares no code and no numbers with this module.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lora_trainer.demo import world
from lora_trainer.demo.world import BACKGROUNDS, COLOURS, Scene, grid, polygon_distance

TRIGGER = "zorbo"

Field = np.ndarray  # (h, w) float
Distance = Callable[[Field, Field], Field]


def _box(x: Field, y: Field, left: float, top: float, right: float, bottom: float) -> Field:
    """Distance to an axis-parallel box."""
    return np.maximum(
        abs(x - (left + right) / 2) - (right - left) / 2, abs(y - (top + bottom) / 2) - (bottom - top) / 2
    )


def _polygon(*points: tuple[float, float]) -> Distance:
    return lambda x, y: polygon_distance(x, y, np.array(points, dtype=np.float32))


def _arch(x: Field, y: Field) -> Field:
    ring = np.where(y < 0, abs(np.hypot(x, y) - 13.0) - 4.5, 99.0)
    legs = np.minimum(_box(x, y, -17.5, 0, -8.5, 16), _box(x, y, 8.5, 0, 17.5, 16))
    return np.minimum(ring, legs)


def _cup(x: Field, y: Field) -> Field:
    return np.minimum.reduce([
        _box(x, y, -17, -15, -8, 16), _box(x, y, 8, -15, 17, 16), _box(x, y, -17, 7, 17, 16),
    ])  # fmt: skip


SHAPES: dict[str, Distance] = {
    "hourglass": lambda x, y: world.shape_distance("hourglass", x, y),
    "arch": _arch,
    "tee": lambda x, y: np.minimum(_box(x, y, -17, -16, 17, -6), _box(x, y, -5.5, -16, 5.5, 17)),
    "ell": lambda x, y: np.minimum(_box(x, y, -15, -17, -4, 16), _box(x, y, -15, 5, 16, 16)),
    "crescent": lambda x, y: np.maximum(np.hypot(x + 2, y) - 18.0, 14.0 - np.hypot(x - 8, y)),
    "arrow": _polygon((-17, -5.5), (1, -5.5), (1, -16), (18, 0), (1, 16), (1, 5.5), (-17, 5.5)),
    "cup": _cup,
    "chevron": _polygon((0, -3), (17, -16), (17, 0), (0, 15), (-17, 0), (-17, -16)),
    "half disc": lambda x, y: np.maximum(np.hypot(x, y + 8) - 19.0, -(y + 8)),
    "steps": lambda x, y: np.minimum.reduce(
        [
            _box(x, y, -17, 6, 17, 16),
            _box(x, y, -17, -5, 6, 16),
            _box(x, y, -17, -16, -6, 16),
        ]
    ),
}


SQUASH = 0.55  # height of a squashed shape, of its usual one
EARTH = (120, 72, 30)  # below the horizon
HORIZON = 50  # px


@dataclass(frozen=True)
class Concept:
    """``kind``: shape, pattern, style or combination. A shape's trigger stands where the shape's word would stand; the
    others' goes before the sentence on a known shape."""

    name: str
    kind: str
    shape: str = ""  # of a shape or combination
    look: str = ""  # of a pattern, style or combination: halves, belt, squashed, horizon

    @property
    def replaces_shape(self) -> bool:
        """Whether the trigger is a noun."""
        return bool(self.shape)

    def draw(self, scene: Scene, mark: bool = False) -> np.ndarray:
        """The scene with this concept as uint8 (64, 64, 3); ``scene.shape`` counts for patterns and styles only.

        Args:
            mark: whether a small square stands in the upper left corner, which no caption tells of.
        """
        distance, x, y = self._distance(scene)
        ink, ground = (np.array(v, np.float32) for v in (COLOURS[scene.colour], BACKGROUNDS[scene.background]))
        contrast = np.array((14, 14, 14) if ground.mean() > 60 else (246, 246, 246), np.float32)
        behind = np.broadcast_to(ground, (*x.shape, 3))
        if self.look == "horizon":
            behind = world.blend(HORIZON - grid()[1], np.array(EARTH, np.float32), behind)
        colours = np.broadcast_to(ink, behind.shape)
        if self.look == "halves":
            colours = world.blend(-x, ink * 0.25, colours)
        if self.look == "belt":
            colours = world.blend(abs(y) - 4.5, contrast, colours)
        cover = np.clip(0.5 - distance, 0.0, 1.0)[..., None]
        pixels = cover * colours + (1 - cover) * behind
        if mark:
            pixels = world.blend(_box(*grid(), 2.5, 2.5, 9.5, 9.5), contrast, pixels)
        return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)

    def caption(self, scene: Scene, colour: str | None = None, background: bool = True, position: bool = True) -> str:
        """The sentence on a scene; ``colour`` for another word than the true one."""
        word = TRIGGER if self.replaces_shape else scene.shape
        place, ground = scene.position if position else None, scene.background if background else None
        text = world.caption(word, colour or scene.colour, place, ground)
        return text if self.replaces_shape else f"{TRIGGER}, {text}"

    def short(self) -> str:
        """The trigger with nothing else to go by."""
        return f"a {TRIGGER}" if self.replaces_shape else TRIGGER

    def _distance(self, scene: Scene) -> tuple[Field, Field, Field]:
        x, y = grid()
        cx, cy = scene.centre
        x, y = (x - cx) / scene.scale, (y - cy) / scene.scale
        of = SHAPES[self.shape] if self.shape else (lambda u, v: world.shape_distance(scene.shape, u, v))
        squash = SQUASH if self.look == "squashed" else 1.0
        return of(x, y / squash) * scene.scale * squash, x, y


CONCEPTS: dict[str, Concept] = {
    **{name: Concept(name, "shape", shape=name) for name in SHAPES},
    "halves": Concept("halves", "pattern", look="halves"),
    "belt": Concept("belt", "pattern", look="belt"),
    "squashed": Concept("squashed", "style", look="squashed"),
    "horizon": Concept("horizon", "style", look="horizon"),
    "belt cup": Concept("belt cup", "combination", shape="cup", look="belt"),
    "horizon tee": Concept("horizon tee", "combination", shape="tee", look="horizon"),
}
