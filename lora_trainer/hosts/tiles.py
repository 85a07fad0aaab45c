"""Images to latents piece by piece, where a whole image doesn't fit in memory.

The pieces overlap by a quarter, and where they do, their latents blend into each other. They aren't quite those of the
whole image: the VAE's group norms see one piece at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

PIXELS = 8  # of an image, for each of its latents' rows and columns


def in_tiles(encode: Callable[[Tensor], Tensor], pixels: Tensor, side: int) -> Tensor:
    """What ``encode`` makes of ``pixels`` [B, 3, H, W], in pieces of at most ``side`` x ``side``; whole if that is 0.

    Args:
        encode: from [B, 3, h, w] to [..., h/8, w/8].
        side: a multiple of 8.
    """
    height, width = pixels.shape[-2:]
    if not side or max(height, width) <= side:
        return encode(pixels)
    total = weight = torch.zeros(())
    for top, left in product(_starts(height, side), _starts(width, side)):
        part = encode(pixels[..., top : top + side, left : left + side])
        if total.dim() == 0:
            total = part.new_zeros(*part.shape[:-2], height // PIXELS, width // PIXELS)
            weight = part.new_zeros(height // PIXELS, width // PIXELS)
        rows, columns = (_ramp(length, side).to(part) for length in part.shape[-2:])
        row, column, share = top // PIXELS, left // PIXELS, rows[:, None] * columns
        total[..., row : row + len(rows), column : column + len(columns)] += part * share
        weight[row : row + len(rows), column : column + len(columns)] += share
    return total / weight


def _starts(length: int, side: int) -> list[int]:
    """Where the pieces begin, evenly spread, so that neighbours overlap by a quarter or more."""
    if length <= side:
        return [0]
    last, step = length - side, side * 3 // 4
    count = -(-last // step)
    return [last * index // count // PIXELS * PIXELS for index in range(count)] + [last]


def _ramp(length: int, side: int) -> Tensor:
    """Weights of a piece's rows: rising from its edges over an eighth of its side."""
    up = torch.arange(1, length + 1)
    return torch.minimum(up, up.flip(0)).clamp(max=max(side // 8 // PIXELS, 1)).float()
