"""The forward diffusion process: noise schedule, noisy latents, targets, signal-to-noise ratio."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lora_trainer.errors import UnsupportedModelError
from lora_trainer.families import PredictionType
from lora_trainer.noise_schedule import rescale_zero_terminal_snr

ORDINARY_LAST_SNR = 0.00468  # of 1000 steps from 0.00085 to 0.012, scaled linearly


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The noise levels of a model: ``alphas_cumprod`` [T], float64 on the CPU, never increasing, below 1, last >= 0.

    Everything that depends on the schedule (noisy latents, targets, SNR, Huber threshold) reads this one table, so a
    zero-SNR rescale holds for all of them. What is derived from it is computed in float64 (in half precision 1−ᾱ would
    be 0 or far off at the smallest timesteps), kept as float32 on each device that asks, and looked up there.
    """

    alphas_cumprod: Tensor
    _tables: dict[torch.device, Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def from_alphas(cls, alphas_cumprod: Tensor, zero_terminal_snr: bool = False) -> NoiseSchedule:
        """Take the checkpoint's table [T] and rescale it to zero terminal SNR if asked (no change if it is already so).

        Raises:
            UnsupportedModelError: if the table isn't a noise schedule.
        """
        alphas = alphas_cumprod.detach().to("cpu", torch.float64).clone()
        falling = alphas.ndim == 1 and len(alphas) > 1 and bool((alphas.diff() <= 0).all())
        if not falling or not bool(torch.isfinite(alphas).all()) or not 0 <= alphas[-1] < alphas[0] < 1:
            raise UnsupportedModelError(
                "The checkpoint's noise schedule (alphas_cumprod) doesn't fall from below 1 to 0; use another file."
            )
        return cls(rescale_zero_terminal_snr(alphas) if zero_terminal_snr else alphas)

    def __len__(self) -> int:
        """Number of timesteps T."""
        return len(self.alphas_cumprod)

    def snr(self, t: Tensor) -> Tensor:
        """Signal-to-noise ratio ᾱ/(1−ᾱ) at ``t`` [B], float32 on its device; 0 at the end of a zero-SNR schedule."""
        return self._table(t.device)[2, t]

    def sigma(self, t: Tensor) -> Tensor:
        """Noise level √((1−ᾱ)/ᾱ) at ``t`` [B], float32 on its device; infinite where the SNR is 0."""
        return self._table(t.device)[3, t]

    @property
    def snr_floor(self) -> float:
        """The smallest signal-to-noise ratio that a loss weight may divide by: that of the last timestep.

        Where the schedule ends in noise alone, it is the one at which Stable Diffusion's ordinary schedule ends. The
        ratios before such an end fall to a millionth: dividing by them would give the last ten timesteps more than half
        of the whole loss, for a prediction that is next to trivial there.
        """
        last = self.alphas_cumprod[-1]
        return float(last / (1 - last)) if last > 0 else ORDINARY_LAST_SNR

    def coefficients(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """√ᾱ and √(1−ᾱ) at ``t`` [B], float32 on ``like``'s device, shaped to multiply ``like`` [B, …]."""
        chosen = self._table(t.device)[:2, t].to(like.device).view(2, -1, *[1] * (like.ndim - 1))
        return chosen[0], chosen[1]

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t = √ᾱ·x0 + √(1−ᾱ)·ε (Ho et al. 2020, eq. 4) in float32; ``x0`` and ``noise`` [B, C, h, w], ``t`` [B]."""
        signal, spread = self.coefficients(t, x0)
        return signal * x0.float() + spread * noise.float()

    def target(self, x0: Tensor, noise: Tensor, t: Tensor, prediction_type: PredictionType) -> Tensor:
        """What the UNet should predict, float32 [B, C, h, w]: ε, or v = √ᾱ·ε − √(1−ᾱ)·x0 (Salimans & Ho 2022)."""
        if prediction_type == "epsilon":
            return noise.float()
        signal, spread = self.coefficients(t, x0)
        return signal * noise.float() - spread * x0.float()

    def _table(self, device: torch.device) -> Tensor:
        """√ᾱ, √(1−ᾱ), SNR and σ, float32 [4, T] on ``device``."""
        if device not in self._tables:
            alphas = self.alphas_cumprod
            rows = (alphas.sqrt(), (1 - alphas).sqrt(), alphas / (1 - alphas), ((1 - alphas) / alphas).sqrt())
            self._tables[device] = torch.stack(rows).to(torch.float32).to(device)
        return self._tables[device]


def sample_timesteps(generator: torch.Generator, batch: int, min_t: int, max_t: int) -> Tensor:
    """Uniform timesteps [batch] int64 on the CPU from ``min_t`` (included) to ``max_t`` (excluded)."""
    return torch.randint(min_t, max_t, (batch,), generator=generator)
