"""Stochastic rounding keeps the mean, gives only numbers of the format, and is a function of seed and step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lora_trainer.training.rounding import Rounding, round_stochastically

VALUES = (0.1, -0.3333, 1e-4, -3e-6, 2e-8, -1e-8, 1.0009, -513.7, 65519.0)


def neighbours(value: float, dtype: torch.dtype) -> tuple[float, float]:
    """The numbers of the format on both sides of a value that is none of them, by NumPy."""
    if dtype == torch.float16:
        nearest = np.float16(value)
        other = np.nextafter(nearest, np.float16(np.inf if np.float32(value) > nearest else -np.inf))
        low, high = sorted((float(nearest), float(other)))
        return low, high
    bits = np.float32(value).view(np.uint32) & np.uint32(0xFFFF0000)  # towards 0
    ends = [float(np.uint32(one).view(np.float32)) for one in (bits, bits + np.uint32(0x10000))]
    return min(ends), max(ends)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_mean_of_what_is_rounded_is_the_value(dtype: torch.dtype) -> None:
    count, generator = 40_000, torch.Generator().manual_seed(3)
    for value in VALUES[: -1 if dtype == torch.float16 else None]:
        low, high = neighbours(value, dtype)
        found = round_stochastically(torch.full((count,), value), dtype, generator).double()
        assert set(found.tolist()) <= {low, high}, value
        share = (float(np.float32(value)) - low) / (high - low)
        deviation = (share * (1 - share) / count) ** 0.5
        assert float((found == high).double().mean()) == pytest.approx(share, abs=5 * deviation + 1e-4), value


def test_what_the_format_holds_stays_and_small_steps_add_up() -> None:
    generator = torch.Generator().manual_seed(1)
    held = torch.tensor([0.0, 1.0, -0.375, 3e38]).bfloat16().float()
    assert torch.equal(round_stochastically(held, torch.bfloat16, generator), held)
    weights = torch.ones(1000)
    rounding = Rounding([weights], torch.bfloat16, 7)
    for step in range(1, 101):
        weights += 1e-3  # a quarter of bf16's step at 1: plain rounding would leave it at 1
        rounding.apply(step)
    assert float(weights.mean()) == pytest.approx(1.1, abs=0.01) and torch.equal(weights, weights.bfloat16().float())
    again = [torch.full((99,), 0.1) for _ in range(3)]
    for tensor, step in zip(again, (4, 4, 5), strict=True):
        Rounding([tensor], torch.float16, 7).apply(step)
    assert torch.equal(again[0], again[1]) and not torch.equal(again[0], again[2])
