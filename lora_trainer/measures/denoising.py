"""What predictions of noise tell of a LoRA, without a picture: gain and drift.

Noise is fixed, and timesteps are in strata: most of the variance of a loss is the timestep's ("demystifying
sd-finetuning", spacepxl). Errors are compared as logarithms of ratios, timestep by timestep: a plain difference
(Adaptive Personalised Training, arXiv 2507.02687) is nearly done long before a shape is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lora_trainer.measures.interval import Estimate, bootstrap
from lora_trainer.measures.probe import Probe, fixed_noise

GAIN_TIMESTEPS = (50, 200, 400, 600, 750, 900)
DRIFT_TIMESTEPS = (300, 600, 900)
DRIFT_CAP = 0.17  # more is damage; best among the runs of the calibration that were fitted (docs/verdict.md)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Latents [N, 4, h, w] on the CPU, all of one size, with a text each."""

    latents: Tensor
    texts: tuple[str, ...]
    key: str  # tells their noise apart from that of others

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, eq=False)
class Rows:
    """Every picture at every timestep, with fixed noise; picture by picture."""

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    texts: tuple[str, ...]
    shape: tuple[int, int]  # pictures, timesteps

    @classmethod
    def of(cls, pictures: Pictures, timesteps: Sequence[int]) -> Rows:
        """The rows of some pictures."""
        n, t = len(pictures), len(timesteps)
        noise = torch.stack([
            fixed_noise(pictures.latents.shape[1:], pictures.key, i, step) for i in range(n) for step in timesteps
        ])  # fmt: skip
        return cls(
            pictures.latents.repeat_interleave(t, 0), noise, torch.tensor(list(timesteps) * n),
            tuple(text for text in pictures.texts for _ in timesteps), (n, t),
        )  # fmt: skip

    def errors(self, probe: Probe) -> Tensor:
        """Mean squared errors [pictures, timesteps]."""
        return probe.errors(self.latents, self.noise, self.timesteps, self.texts).view(self.shape)

    def outputs(self, probe: Probe) -> Tensor:
        """Predictions [pictures · timesteps, 4, h, w]."""
        noisy = probe.schedule.add_noise(self.latents, self.noise, self.timesteps)
        return probe.predict(noisy, self.timesteps, self.texts)


def drift(base: Tensor, lora: Tensor) -> Tensor:
    """‖ε_lora − ε_base‖ ÷ ‖ε_base‖ of every row [R]: how far predictions for pictures without the trigger moved."""
    return (lora - base).flatten(1).norm(dim=1) / base.flatten(1).norm(dim=1).clamp_min(1e-12)


def log_ratio(one: Tensor, two: Tensor) -> Estimate:
    """ln(mean of the one ÷ mean of the other) at each timestep, averaged over them; errors [N, T], drawn by picture."""
    both = torch.stack([one, two], -1).numpy()
    return bootstrap(both, lambda part: float(np.mean(bins(part[..., 0], part[..., 1]))))


def bins(one: np.ndarray, two: np.ndarray) -> list[float]:
    """The same for each timestep, without intervals."""
    return np.log(np.maximum(one.mean(0), 1e-12) / np.maximum(two.mean(0), 1e-12)).tolist()  # type: ignore[no-any-return]
