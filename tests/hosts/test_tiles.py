"""Encoding in pieces: every pixel counts once, seams blend, and nothing changes where an image fits whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from lora_trainer.demo import CHECKPOINT
from lora_trainer.hosts.standalone.host import DiffusersHost
from lora_trainer.hosts.tiles import in_tiles


@pytest.mark.parametrize(("height", "width"), [(64, 64), (72, 200), (1024, 512), (320, 96)])
def test_what_looks_at_eight_pixels_gives_the_same_in_pieces(height: int, width: int) -> None:
    pixels = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    largest: list[int] = []

    def encode(part: Tensor) -> Tensor:
        largest.append(max(part.shape[-2:]))
        return torch.stack([avg_pool2d(part, 8), avg_pool2d(part, 8) * 2])

    whole = encode(pixels)
    for side in (64, 128):
        largest.clear()
        torch.testing.assert_close(in_tiles(encode, pixels, side), whole)
        assert max(largest) <= side and (len(largest) > 1) == (max(height, width) > side)
    largest.clear()
    assert torch.equal(in_tiles(encode, pixels, 0), whole) and largest == [max(height, width)]


def test_a_piece_that_differs_leaves_no_edge() -> None:
    """Where one piece is 1 higher than its neighbour, rows rise step by step."""
    count = iter(range(2))
    made = in_tiles(lambda part: torch.full((1, 1, 32, 32), float(next(count))), torch.zeros(1, 3, 256, 448), 256)
    steps = made[0, 0, 0].diff()
    assert made.min() == 0 and made.max() == 1 and bool((steps >= 0).all()) and float(steps.max()) < 0.3


def test_a_real_vae_in_pieces(tmp_path: Path) -> None:
    """The practice checkpoint's, a picture in pieces of half its side; larger pieces are closer, see docs/memory.md."""
    x = torch.linspace(-3, 3, 128)
    pixels = torch.stack([torch.sin(x[:, None] * k + x) for k in (1, 2, 3)])[None]
    with DiffusersHost(CHECKPOINT, tmp_path, device="cpu").take("no") as model:
        whole, spread = model.encode_images(pixels)
        pieces, other = model.encode_images(pixels, 64)
    assert 0 < torch.linalg.norm(pieces - whole) < 0.15 * torch.linalg.norm(whole)
    assert torch.linalg.norm(other - spread) < 0.1 * torch.linalg.norm(spread)
