"""Resizing and colour augmentation of pixels, against their definitions."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image

from lora_trainer.dataset.images import FILTERS, GAMMA, area_average, resize, vary_color


def test_area_average_equals_the_mean_over_each_stretch() -> None:
    rng = np.random.default_rng(0)
    for old, new in ((10, 10), (10, 5), (10, 4), (7, 3), (600, 576), (1000, 1), (513, 512)):
        values = rng.integers(0, 256, (old, 2, 3), dtype=np.uint8)
        fine = np.repeat(values.astype(np.float64), new, axis=0)  # every pixel cut into `new` parts
        expected = fine.reshape(new, old, 2, 3).mean(axis=1)
        np.testing.assert_allclose(area_average(values, new), expected, atol=1e-3 * max(1, old / new / 10))


def test_shrinking_equals_box_reduction_and_enlarging_is_lanczos() -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (96, 160, 3), dtype=np.uint8))
    np.testing.assert_allclose(resize(image, (40, 24)).astype(int), np.asarray(image.reduce(4)).astype(int), atol=1)
    bigger = np.asarray(image.resize((200, 100), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(resize(image, (200, 100)), bigger)
    mixed = np.asarray(image.resize((80, 97), Image.Resampling.LANCZOS))  # one side grows
    np.testing.assert_array_equal(resize(image, (80, 97)), mixed)
    np.testing.assert_array_equal(resize(image, (160, 96)), np.asarray(image))
    for how in FILTERS:
        filtered = resize(image, (80, 48), how)
        same = resize(image, (80, 48)) if how == "area" else np.asarray(image.resize((80, 48), FILTERS[how]))
        np.testing.assert_array_equal(filtered, same)


def test_color_augmentation_follows_the_ranges_of_kohya() -> None:
    pixels = np.full((1, 1, 3), (200, 100, 50), np.uint8)
    results = [vary_color(pixels, random.Random(seed))[0, 0].astype(int) for seed in range(3000)]
    hue = np.asarray(Image.fromarray(pixels).convert("HSV"))[0, 0, 0]
    turned = gammas = 0
    for result in results:
        low, high = (255 * (np.array([200, 100, 50]) / 255) ** g for g in (GAMMA[1], GAMMA[0]))
        now = int(np.asarray(Image.fromarray(result.astype(np.uint8)[None, None]).convert("HSV"))[0, 0, 0])
        if (result == (200, 100, 50)).all():
            continue
        if abs(now - int(hue)) > 1:
            turned += 1
            assert min(abs(now - int(hue)), 256 - abs(now - int(hue))) <= 8 / 180 * 256 + 1.5
            assert result.max() - result.min() == pytest.approx(150, abs=3)  # saturation and value are kept
        else:
            gammas += 1
            assert (result >= np.floor(low) - 2).all() and (result <= np.ceil(high) + 2).all()
    assert 0.11 < turned / 3000 < 0.18  # 0.33 / 2, less the turns by at most one unit
    assert 0.11 < gammas / 3000 < 0.21


def test_grey_has_no_hue_to_turn() -> None:
    pixels = np.full((2, 2, 3), 128, np.uint8)
    for seed in range(300):
        result = vary_color(pixels, random.Random(seed))
        assert (result == result[..., :1]).all()
