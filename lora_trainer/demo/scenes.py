"""Pictures for the autoencoder: wider than the captioned world, so that it can also show what it has no words for."""

from __future__ import annotations

import numpy as np

from lora_trainer.demo import world


def random_distance(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Signed distance (size, size) of one random object: any known shape, polygon, star, ellipse, ring or hourglass."""
    kind = rng.integers(6)
    radius = rng.uniform(8, 22)
    turn = rng.uniform(0, 2 * np.pi)
    c, s = np.cos(turn), np.sin(turn)
    u, v = c * x + s * y, c * y - s * x
    if kind == 0:  # a known shape or the hourglass, stretched and often turned
        if rng.random() < 0.5:
            u, v = x, y
        k = radius / 16
        return world.shape_distance(str(rng.choice([*world.SHAPES, "hourglass"])), u / k, v / k) * k
    if kind == 1:  # blob: a polygon with uneven corners
        n = int(rng.integers(3, 9))
        angle = np.sort(rng.uniform(0, 2 * np.pi, n))
        r = radius * rng.uniform(0.5, 1.2, n)
        return world.polygon_distance(u, v, np.stack([r * np.cos(angle), r * np.sin(angle)], 1).astype(np.float32))
    if kind == 2:
        points = world.star_points(int(rng.integers(3, 8)), radius, radius * rng.uniform(0.35, 0.8))
        return world.polygon_distance(u, v, points)
    if kind == 3:  # ellipse (distance to first order)
        a, b = radius, radius * rng.uniform(0.4, 1.0)
        k = np.hypot(u / a, v / b)
        return (k - 1.0) * k / np.maximum(np.hypot(u / a**2, v / b**2), 1e-3)
    if kind == 4:  # ring, half of the time an arc
        d = abs(np.hypot(u, v) - radius * 0.8) - rng.uniform(2.5, 6)
        return np.maximum(d, v) if rng.random() < 0.5 else d
    return np.maximum(abs(u) - radius, abs(v) - radius * rng.uniform(0.25, 1.0))


def random_colour(rng: np.random.Generator, words: dict[str, tuple[int, int, int]]) -> np.ndarray:
    """Half of the time one of the named colours, else any; (3,) in 0..255."""
    if rng.random() < 0.6:
        return np.array(words[str(rng.choice(list(words)))], dtype=np.float32)
    return rng.uniform(0, 255, 3).astype(np.float32)


def random_picture(rng: np.random.Generator) -> np.ndarray:
    """A background with one or two random objects, uint8 (64, 64, 3)."""
    x, y = world.grid()
    pixels = np.broadcast_to(random_colour(rng, world.BACKGROUNDS), (world.SIZE, world.SIZE, 3))
    for _ in range(1 if rng.random() < 0.7 else 2):
        cx, cy = rng.uniform(14, 50, 2)
        pixels = world.blend(random_distance(x - cx, y - cy, rng), random_colour(rng, world.COLOURS), pixels)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def picture_batch(count: int, rng: np.random.Generator, known: float) -> np.ndarray:
    """``count`` pictures (count, 3, 64, 64) float32 in -1..1; a share ``known`` of them from the captioned world."""
    pictures = [
        world.draw(world.random_scene(rng)) if rng.random() < known else random_picture(rng) for _ in range(count)
    ]
    return (np.stack(pictures).transpose(0, 3, 1, 2) / np.float32(127.5)) - np.float32(1.0)
