"""What a step computes with: the random draw of each image, and a micro-batch of them on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from lora_trainer.hosts.base import Conditioning, SizeConditioning

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Draw:
    """The random part of one image's use: a function of the seed and which use it is, nothing else."""

    latent: Tensor  # [4, h, w]
    noise: Tensor
    input_noise: Tensor  # the same object as ``noise`` where the input isn't perturbed
    timestep: int


@dataclass
class StepInputs:
    """A micro-batch, ready for the UNet; everything on the model's device, float32."""

    latents: Tensor  # [B, 4, h, w], scaled
    noise: Tensor  # [B, 4, h, w], the target's noise
    input_noise: Tensor  # the same, or perturbed (ip_noise_gamma)
    timesteps: Tensor  # [B] int64
    conditioning: Conditioning
    sizes: Sequence[SizeConditioning]
    masks: Tensor | None  # [B, 1, h, w] in 0…1
    weights: Tensor  # [B]: 1, or prior_loss_weight for regularisation images

    @classmethod
    def of(
        cls,
        draws: Sequence[Draw],
        conditioning: Conditioning,
        sizes: Sequence[SizeConditioning],
        masks: Tensor | None,
        weights: Sequence[float],
        device: torch.device,
    ) -> StepInputs:
        """The draws of a micro-batch's images, together and on the device."""
        noise = torch.stack([draw.noise for draw in draws]).to(device)
        perturbed = any(draw.input_noise is not draw.noise for draw in draws)
        return cls(
            latents=torch.stack([draw.latent for draw in draws]).to(device),
            noise=noise,
            input_noise=torch.stack([draw.input_noise for draw in draws]).to(device) if perturbed else noise,
            timesteps=torch.tensor([draw.timestep for draw in draws], device=device),
            conditioning=conditioning,
            sizes=sizes,
            masks=masks,
            weights=torch.tensor(weights, device=device),
        )
