"""The small world that the embedded checkpoint knows: words, drawings and captions.

A picture is one big flat shape on a plain background. All words of colours and of backgrounds differ, so that every
word means one thing. Drawing uses signed distances in pixels of a 64 px canvas; coverage is antialiased.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SIZE = 64  # pixels of an edge

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (225, 30, 35),
    "orange": (255, 140, 0),
    "yellow": (250, 225, 30),
    "green": (30, 165, 60),
    "cyan": (30, 200, 215),
    "blue": (35, 70, 215),
    "purple": (130, 40, 180),
    "pink": (250, 110, 190),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (246, 246, 246),
    "black": (14, 14, 14),
    "gray": (128, 128, 128),
    "beige": (236, 216, 180),
    "mint": (196, 238, 212),
    "lavender": (208, 200, 242),
}
POSITIONS: dict[str, tuple[float, float]] = {  # words -> offset of the centre in pixels (x to the right, y down)
    "in the center": (0.0, 0.0),
    "on the left": (-12.0, 0.0),
    "on the right": (12.0, 0.0),
    "at the top": (0.0, -12.0),
    "at the bottom": (0.0, 12.0),
}
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "cross", "ring")

JITTER = 1.5  # pixels by which a centre may be off
SCALES = (0.93, 1.07)


@dataclass(frozen=True)
class Scene:
    """One picture's facts. ``dx``, ``dy`` in pixels; ``scale`` is a factor on the shape's usual size."""

    shape: str
    colour: str
    position: str
    background: str
    dx: float = 0.0
    dy: float = 0.0
    scale: float = 1.0

    @property
    def centre(self) -> tuple[float, float]:
        """Centre of the shape in pixels from the upper left corner."""
        x, y = POSITIONS[self.position]
        return SIZE / 2 + x + self.dx, SIZE / 2 + y + self.dy


def polygon_distance(x: np.ndarray, y: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Signed distance (pixels, negative inside) of the pixels (x, y) to a closed polygon of shape (n, 2)."""
    best = np.full(x.shape, np.inf, dtype=np.float32)
    inside = np.zeros(x.shape, dtype=bool)
    for (ax, ay), (bx, by) in zip(points, np.roll(points, -1, axis=0), strict=True):
        ex, ey, wx, wy = bx - ax, by - ay, x - ax, y - ay
        t = np.clip((wx * ex + wy * ey) / (ex * ex + ey * ey + 1e-9), 0.0, 1.0)
        best = np.minimum(best, (wx - ex * t) ** 2 + (wy - ey * t) ** 2)
        if ay != by:
            inside ^= ((ay > y) != (by > y)) & (wx < ex * wy / ey)
    return np.where(inside, -1.0, 1.0).astype(np.float32) * np.sqrt(best)


def star_points(count: int, outer: float, inner: float) -> np.ndarray:
    """Corners (2 * count, 2) of a star with one point up; radii in pixels."""
    angle = np.arange(2 * count) * np.pi / count - np.pi / 2
    radius = np.where(np.arange(2 * count) % 2 == 0, outer, inner)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32)


def shape_distance(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance in pixels of a shape of usual size, centred at the origin."""
    if shape == "circle":
        return np.hypot(x, y) - 16.0
    if shape == "square":
        return np.maximum(abs(x), abs(y)) - 14.5
    if shape == "triangle":
        return polygon_distance(x, y, np.array([[0, -17], [18, 14], [-18, 14]], dtype=np.float32))
    if shape == "star":
        return polygon_distance(x, y, star_points(5, 20.0, 9.0))
    if shape == "cross":
        return np.minimum(np.maximum(abs(x) - 17.0, abs(y) - 6.0), np.maximum(abs(x) - 6.0, abs(y) - 17.0))
    if shape == "ring":
        return abs(np.hypot(x, y) - 13.0) - 4.5
    if shape == "hourglass":  # not in SHAPES: the demo's concept
        points = [[-15, -17], [15, -17], [3, 0], [15, 17], [-15, 17], [-3, 0]]
        return polygon_distance(x, y, np.array(points, dtype=np.float32))
    raise ValueError(f"unknown shape {shape!r}; known: {', '.join((*SHAPES, 'hourglass'))}")


def grid(size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (size, size) of the pixels' centres in units of the 64 px canvas."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) * (SIZE / size)
    x, y = np.meshgrid(axis, axis)
    return x, y


def blend(distance: np.ndarray, colour: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Picture (h, w, 3) in 0..255 float from a distance map (h, w) in output pixels and two colours (3,)."""
    cover = np.clip(0.5 - distance, 0.0, 1.0)[..., None]
    return cover * colour + (1.0 - cover) * background


def draw(scene: Scene, size: int = SIZE) -> np.ndarray:
    """The scene as uint8 (size, size, 3)."""
    x, y = grid(size)
    cx, cy = scene.centre
    distance = shape_distance(scene.shape, (x - cx) / scene.scale, (y - cy) / scene.scale)
    pixels = blend(
        distance * scene.scale * (size / SIZE),
        np.array(COLOURS[scene.colour], dtype=np.float32),
        np.array(BACKGROUNDS[scene.background], dtype=np.float32),
    )
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def jittered(shape: str, colour: str, position: str, background: str, rng: np.random.Generator) -> Scene:
    """A scene with a random small shift and size."""
    dx, dy = rng.uniform(-JITTER, JITTER, 2)
    return Scene(shape, colour, position, background, float(dx), float(dy), float(rng.uniform(*SCALES)))


def random_scene(rng: np.random.Generator) -> Scene:
    """A scene drawn evenly from all words."""
    return jittered(
        str(rng.choice(SHAPES)),
        str(rng.choice(list(COLOURS))),
        str(rng.choice(list(POSITIONS))),
        str(rng.choice(list(BACKGROUNDS))),
        rng,
    )


def caption(
    shape: str, colour: str | None = None, position: str | None = None, background: str | None = None, style: int = 0
) -> str:
    """The sentence for these facts. ``style`` 0 or 1 only moves the background; facts that are None are left out."""
    article = "an" if (colour or shape)[0] in "aeiou" else "a"
    words = f"{article} {colour} {shape}" if colour else f"{article} {shape}"
    if style == 1:
        words += f" on a {background} background" if background else ""
        return words + (f", {position}" if position else "")
    words += f" {position}" if position else ""
    return words + (f", {background} background" if background else "")


def describe(scene: Scene, style: int = 0) -> str:
    """The full caption of a scene."""
    return caption(scene.shape, scene.colour, scene.position, scene.background, style)
