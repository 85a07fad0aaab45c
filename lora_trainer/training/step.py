"""One forward pass of training: noisy latents in, one loss per image out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from lora_trainer.config import LossConfig
from lora_trainer.families import PredictionType
from lora_trainer.hosts.base import Conditioning, SizeConditioning, TakenModel
from lora_trainer.seeds import torch_generator
from lora_trainer.training.diffusion import NoiseSchedule, sample_timesteps
from lora_trainer.training.loss import combine
from lora_trainer.training.noise import make_noise, perturb

if TYPE_CHECKING:
    from torch import Tensor


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


@dataclass(frozen=True)
class Draw:
    """The random part of one image's use: a function of the seed and which use it is, nothing else."""

    latent: Tensor  # [4, h, w]
    noise: Tensor
    input_noise: Tensor
    timestep: int


def draw(mean: Tensor, std: Tensor, config: LossConfig, seed: int, uid: int) -> Draw:
    """Sample latent, noise and timestep of one use of an image; ``uid`` is unique over the run.

    The key holds no step, batch or process number: how images are grouped doesn't change what each of them sees.
    """
    latent = mean + std * torch.randn(mean.shape, generator=torch_generator(seed, "latent", uid))
    noise = make_noise(mean.shape, config, torch_generator(seed, "noise", uid), latent)
    input_noise = perturb(noise, config, torch_generator(seed, "perturb", uid))
    generator = torch_generator(seed, "timestep", uid)
    timestep = int(sample_timesteps(generator, 1, config.min_timestep, config.max_timestep))
    return Draw(latent, noise, input_noise, timestep)


def training_step(
    model: TakenModel,
    inputs: StepInputs,
    schedule: NoiseSchedule,
    prediction_type: PredictionType,
    config: LossConfig,
) -> Tensor:
    """The loss of every image in the micro-batch, [B]; the caller averages and calls backward."""
    noisy = schedule.add_noise(inputs.latents, inputs.input_noise, inputs.timesteps)
    predicted = model.predict(noisy, inputs.timesteps, inputs.conditioning, inputs.sizes)
    target = schedule.target(inputs.latents, inputs.noise, inputs.timesteps, prediction_type)
    return combine(
        predicted, target, inputs.timesteps, schedule, prediction_type, config, inputs.masks, inputs.weights
    )  # fmt: skip
