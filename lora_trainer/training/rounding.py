"""Stochastic rounding: weights that hold a narrow format's numbers, and still move by less than one step of it.

A value between two numbers of the format becomes one of them, each with the probability of its nearness, so that its
mean stays the value (Gupta et al. 2015, "Deep learning with limited numerical precision").
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lora_trainer.seeds import derive


@torch.no_grad()
def round_stochastically(values: Tensor, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Values as numbers of bf16 or fp16, in the type that they came in; what the format holds already stays as it is.

    Args:
        generator: on the values' device.
    """
    nearest = values.to(dtype)
    error = values - nearest.to(values.dtype)
    bits = nearest.view(torch.int16)
    outwards = error.sign() == nearest.to(values.dtype).sign()  # away from 0: the next larger magnitude
    smallest = torch.where(error < 0, torch.full_like(bits, -0x7FFF), torch.ones_like(bits))  # the least beside 0
    next_bits = torch.where(nearest == 0, smallest, torch.where(outwards, bits + 1, bits - 1))
    other = next_bits.view(dtype)
    gap = (other.to(values.dtype) - nearest.to(values.dtype)).abs()
    chance = torch.rand(values.shape, generator=generator, device=values.device, dtype=values.dtype)
    move = (error != 0) & torch.isfinite(other) & (chance * gap < error.abs())
    return torch.where(move, other, nearest).to(values.dtype)


class Rounding:
    """Keeps parameters at a format's numbers."""

    def __init__(self, parameters: Sequence[Tensor], dtype: torch.dtype, seed: int) -> None:
        self.parameters, self.dtype, self.seed = parameters, dtype, seed

    @torch.no_grad()
    def apply(self, step: int) -> None:
        """Round what step ``step`` made of them; the draw is a function of seed and step."""
        generator = torch.Generator(self.parameters[0].device).manual_seed(derive(self.seed, "rounding", step))
        for parameter in self.parameters:
            parameter.copy_(round_stochastically(parameter, self.dtype, generator))
