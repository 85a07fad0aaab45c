"""Weights in 8 bits: whole numbers from -127 to 127, and a factor for each output channel (Dettmers et al. 2022, §2.1,
https://arxiv.org/abs/2208.07339, there by rows).

Whole numbers rather than fp8: every device and PyTorch has them, and with a factor for each channel they are nearer to
the weights (docs/memory.md has both errors).
"""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = 127


def to_8_bits(weight: Tensor) -> tuple[Tensor, Tensor]:
    """``weight`` [out, …] as int8 of the same shape, and the factors [out, 1, …] in fp32."""
    wide = weight.detach().float()
    factor = wide.flatten(1).abs().amax(1).div_(LARGEST).clamp_(min=torch.finfo(torch.float32).tiny)
    factor = factor.view(-1, *(1 for _ in weight.shape[1:]))
    return (wide / factor).round_().to(torch.int8), factor


def from_8_bits(numbers: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight in ``dtype``; the product is made in fp32 and rounded once."""
    return torch.mul(numbers, factor, out=torch.empty_like(numbers, dtype=dtype))


def size_in_8_bits(weight: Tensor) -> int:
    """Bytes that a weight takes so."""
    return weight.numel() + 4 * int(weight.shape[0])
