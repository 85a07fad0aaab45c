"""Noise schedules ᾱ [T] as checkpoints define them; trainer and samplers share these."""

from __future__ import annotations

import torch
from torch import Tensor


def linear_in_root(start: float, end: float, steps: int = 1000) -> Tensor:
    """ᾱ [steps] float32 of ldm's "linear" schedule, which is linear in √β (Rombach et al. 2022)."""
    betas = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


def rescale_zero_terminal_snr(alphas_cumprod: Tensor) -> Tensor:
    """Shift and scale √ᾱ so that the last is 0 and the first is kept (Lin et al. 2023, algorithm 1); float64 [T]."""
    root = alphas_cumprod.double().sqrt()
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return root.square()
