"""Crops, flips and masks of loaded images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.support.pixels import bytes_of, load


def coordinates(path: Path, width: int, height: int) -> None:
    """An image whose red is the column and whose green is the row."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    Image.fromarray(np.stack([x, y, np.zeros_like(x)], -1).astype(np.uint8)).save(path)


def test_centre_crop(tmp_path: Path) -> None:
    coordinates(tmp_path / "a.png", 200, 150)
    seen = bytes_of(load(tmp_path / "a.png").pixels)
    assert seen.shape == (128, 192, 3)
    assert tuple(seen[0, 0][:2]) == (4, 11)
    assert tuple(seen[-1, -1][:2]) == (195, 138)


def test_random_crop_moves_and_is_a_function_of_the_generator(tmp_path: Path) -> None:
    coordinates(tmp_path / "a.png", 200, 150)
    corners = {tuple(bytes_of(load(tmp_path / "a.png", seed=s, random_crop=True).pixels)[0, 0][:2]) for s in range(100)}
    assert {x for x, _ in corners} == set(range(9))
    assert max(y for _, y in corners) <= 22 and len({y for _, y in corners}) > 15
    first, second = (load(tmp_path / "a.png", seed=3, random_crop=True).pixels for _ in range(2))
    assert torch.equal(first, second)
    centred = load(tmp_path / "a.png", seed=3).pixels  # the option is off: the generator isn't used
    assert tuple(bytes_of(centred)[0, 0][:2]) == (4, 11)


def test_flip_mirrors_pixels_and_mask_together(tmp_path: Path) -> None:
    image = Image.new("RGBA", (128, 64), (10, 20, 30, 255))
    image.paste((200, 0, 0, 100), (0, 0, 40, 64))
    image.save(tmp_path / "a.png")
    plain, flipped = (load(tmp_path / "a.png", flip=flip, alpha_mask=True) for flip in (False, True))
    assert not torch.equal(plain.pixels, flipped.pixels)
    assert torch.equal(plain.pixels.flip(-1), flipped.pixels)
    assert plain.mask is not None and flipped.mask is not None
    assert torch.equal(plain.mask.flip(-1), flipped.mask)
    assert plain.mask[0, 0, 0] < 0.5 < plain.mask[0, 0, -1]


def test_mask_is_resized_and_cropped_with_the_pixels(tmp_path: Path) -> None:
    image = Image.new("RGBA", (1024, 512), (0, 0, 0, 255))
    image.paste((255, 255, 255, 0), (0, 0, 512, 512))
    image.save(tmp_path / "a.png")
    loaded = load(tmp_path / "a.png", enable_bucket=False, resolution=(256, 256), alpha_mask=True)
    assert loaded.mask is not None and loaded.mask.shape == (1, 256, 256)
    assert loaded.mask[0, :, :128].max() == 0 and loaded.mask[0, :, 128:].min() == 1
    assert loaded.pixels[:, :, :128].min() == 1 and loaded.pixels[:, :, 128:].max() == -1
