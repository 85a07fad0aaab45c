"""The drawn world, its captions, and the reader of the tests held against each other."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from lora_trainer.demo import world
from tests.demo import world_reader


def random_scenes(count: int, seed: int = 0) -> list[world.Scene]:
    rng = np.random.default_rng(seed)
    result = [world.random_scene(rng) for _ in range(count)]
    for i in range(0, count, 7):  # the concept too
        s = result[i]
        result[i] = world.Scene("hourglass", s.colour, s.position, s.background, s.dx, s.dy, s.scale)
    return result


def spoilt(pixels: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Blurred and noisy, worse than the autoencoder's pictures."""
    soft = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1.2))
    return Image.fromarray(np.clip(np.asarray(soft) + rng.normal(0, 8, pixels.shape), 0, 255).astype(np.uint8))


@pytest.mark.parametrize("spoil", [False, True])
def test_reader_reads_drawings(spoil: bool) -> None:
    rng, scenes, wrong = np.random.default_rng(1), random_scenes(400), []
    for scene in scenes:
        pixels = world.draw(scene)
        got = world_reader.read(spoilt(pixels, rng) if spoil else Image.fromarray(pixels))
        shape = world_reader.CONCEPT if scene.shape == "hourglass" else scene.shape
        if (got.shape, got.colour, got.background, got.position) != (
            shape,
            scene.colour,
            scene.background,
            scene.position,
        ):
            wrong.append((scene, got))
    assert len(wrong) <= len(scenes) * 0.005, wrong


def test_reader_rejects_what_it_does_not_know() -> None:
    rng = np.random.default_rng(0)
    assert world_reader.read(Image.new("RGB", (64, 64), "white")).shape == world_reader.NONE
    noise = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    assert world_reader.read(noise).shape == world_reader.NONE
    x, y = world.grid()
    crescent = np.maximum(np.hypot(x - 32, y - 32) - 18, 14 - np.hypot(x - 42, y - 32))
    halves = np.minimum(np.hypot(x - 18, y - 32) - 10, np.hypot(x - 46, y - 32) - 10)
    ink, paper = np.array([225, 30, 35]), np.array([246, 246, 246])
    for distance in (crescent, halves):
        picture = Image.fromarray(world.blend(distance, ink, paper).astype(np.uint8))
        assert world_reader.read(picture).shape == world_reader.NONE


def test_reader_and_world_have_the_same_words() -> None:
    assert set(world_reader.COLOURS) == set(world.COLOURS)
    assert set(world_reader.BACKGROUNDS) == set(world.BACKGROUNDS)
    assert set(world_reader.POSITIONS) == set(world.POSITIONS)
    assert set(world_reader.polygons()) == {*world.SHAPES, world_reader.CONCEPT}


def test_larger_drawing_shrinks_to_the_small_one() -> None:
    scene = random_scenes(3)[1]
    small = np.asarray(Image.fromarray(world.draw(scene, 256)).resize((64, 64), Image.Resampling.BOX), dtype=float)
    assert abs(small - world.draw(scene)).mean() < 1.0


def test_polygon_distance_matches_the_box() -> None:
    x, y = world.grid()
    corners = np.array([[20, 20], [44, 20], [44, 44], [20, 44]], dtype=np.float32)
    distance = world.polygon_distance(x, y, corners)
    inside = (abs(x - 32) < 12) & (abs(y - 32) < 12)
    assert ((distance < 0) == inside).all()
    np.testing.assert_allclose(distance[32, 60], 60.5 - 44, atol=1e-4)


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        (0, "an orange star on the left, mint background"),
        (1, "an orange star on a mint background, on the left"),
    ],
)
def test_captions(style: int, expected: str) -> None:
    assert world.caption("star", "orange", "on the left", "mint", style) == expected


def test_caption_leaves_unknown_facts_out() -> None:
    assert world.caption("ring") == "a ring"
    assert world.caption("ring", "red", background="gray") == "a red ring, gray background"


def test_unknown_shape_is_named() -> None:
    with pytest.raises(ValueError, match="unknown shape 'heart'; known: circle"):
        world.shape_distance("heart", *world.grid())
