"""What is specific to a kind of diffusion: timesteps, noisy input, target and weight, behind one small interface.

The loop, the feed and the session know an :class:`Objective` only. Another kind (a rectified flow, say) is another
class; :func:`make_objective` chooses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

from lora_trainer.config import LossConfig
from lora_trainer.families import PredictionType
from lora_trainer.seeds import torch_generator
from lora_trainer.training.diffusion import NoiseSchedule, sample_timesteps
from lora_trainer.training.inputs import Draw, StepInputs
from lora_trainer.training.loss import check_loss, combine
from lora_trainer.training.noise import make_noise, perturb

if TYPE_CHECKING:
    from torch import Tensor

    from lora_trainer.hosts.base import ModelInfo


class Objective(Protocol):
    """What the model learns to predict, from what."""

    prediction_type: PredictionType

    def draw(self, mean: Tensor, std: Tensor, seed: int, uid: int) -> Draw:
        """Sample latent, noise and timestep of one use of an image; ``uid`` is unique over the run.

        The key holds no step, batch or process number: how images are grouped doesn't change what each of them sees.
        """

    def noisy(self, inputs: StepInputs) -> Tensor:
        """What the model is given, float32 [B, 4, h, w]."""

    def losses(self, predicted: Tensor, inputs: StepInputs) -> Tensor:
        """Loss of every image, [B] float32: distance to the target, masked and weighted."""


class DiscreteDiffusion:
    """Noise or v prediction over the checkpoint's table of noise levels (Ho et al. 2020; Salimans & Ho 2022)."""

    def __init__(self, schedule: NoiseSchedule, prediction_type: PredictionType, config: LossConfig) -> None:
        check_loss(prediction_type, config)
        self.schedule, self.prediction_type, self.config = schedule, prediction_type, config

    def draw(self, mean: Tensor, std: Tensor, seed: int, uid: int) -> Draw:
        """See :class:`Objective`."""
        config = self.config
        latent = mean + std * torch.randn(mean.shape, generator=torch_generator(seed, "latent", uid))
        noise = make_noise(mean.shape, config, torch_generator(seed, "noise", uid), latent)
        input_noise = perturb(noise, config, torch_generator(seed, "perturb", uid))
        generator = torch_generator(seed, "timestep", uid)
        timestep = int(sample_timesteps(generator, 1, config.min_timestep, config.max_timestep))
        return Draw(latent, noise, input_noise, timestep)

    def noisy(self, inputs: StepInputs) -> Tensor:
        """See :class:`Objective`."""
        return self.schedule.add_noise(inputs.latents, inputs.input_noise, inputs.timesteps)

    def losses(self, predicted: Tensor, inputs: StepInputs) -> Tensor:
        """See :class:`Objective`."""
        target = self.schedule.target(inputs.latents, inputs.noise, inputs.timesteps, self.prediction_type)
        return combine(
            predicted, target, inputs.timesteps, self.schedule, self.prediction_type, self.config, inputs.masks,
            inputs.weights,
        )  # fmt: skip


def make_objective(info: ModelInfo, alphas_cumprod: Tensor, config: LossConfig) -> Objective:
    """The objective of a run: what the checkpoint is made for, unless the options say otherwise.

    Raises:
        ConfigError: if an option is defined for the other prediction type only; names it.
        UnsupportedModelError: if the checkpoint's table isn't a noise schedule.
    """
    prediction = info.prediction_type
    if config.v_parameterization is not None:
        prediction = "v_prediction" if config.v_parameterization else "epsilon"
    schedule = NoiseSchedule.from_alphas(alphas_cumprod, config.zero_terminal_snr)
    return DiscreteDiffusion(schedule, prediction, config)
