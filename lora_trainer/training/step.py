"""One optimiser step, in its parts: noisy latents in, losses out; gradients in, weights out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from lora_trainer.config import RunConfig
from lora_trainer.hosts.base import TakenModel
from lora_trainer.training.ema import Ema
from lora_trainer.training.inputs import StepInputs
from lora_trainer.training.objective import Objective
from lora_trainer.training.optimizers import create_optimizer, learning_rates
from lora_trainer.training.precision import clip_gradients, make_grad_scaler, total_norm
from lora_trainer.training.rounding import Rounding
from lora_trainer.training.schedule import create_scheduler

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.amp import GradScaler


SMALLEST_SCALE = 1.0  # of fp16 gradients


class StepLoss(NamedTuple):
    """Mean losses of a step's images: with the LoRA, the base model's (NaN where it wasn't measured), and what to
    expect of the latter at such timesteps (NaN where nothing is known yet)."""

    loss: float
    baseline: float
    expected: float


def training_step(model: TakenModel, inputs: StepInputs, objective: Objective) -> Tensor:
    """The loss of every image in the micro-batch, [B]; :meth:`Update.backward` takes it from there."""
    predicted = model.predict(objective.noisy(inputs), inputs.timesteps, inputs.conditioning, inputs.sizes)
    return objective.losses(predicted, inputs)


@dataclass
class Update:
    """What turns gradients into new weights; the same for a run and for a measurement."""

    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    scheduler: Any  # of torch.optim.lr_scheduler
    scaler: GradScaler
    max_grad_norm: float
    ema: Ema | None = None  # the moving average of the weights, if one is wanted
    rounding: Rounding | None = None  # to a narrow format's numbers
    skipped: bool = False  # whether the last step was, because fp16 gradients overflowed

    def backward(self, losses: Tensor, images: int) -> float:
        """Add the gradients of ``losses`` [B] as a share of ``images``; returns their sum. Inside the step's hooks."""
        self.scaler.scale(losses.sum() / images).backward()
        return float(losses.detach().sum())

    def clip(self) -> float:
        """Unscale and clip the gradients; returns their norm before, which is how NaN shows."""
        return clip_gradients(self.parameters, self.max_grad_norm, self.scaler, self.optimizer)

    @property
    def overflow_is_final(self) -> bool:
        """Whether an infinite norm means divergence; above this scale, the fp16 scaler is only still searching."""
        return not self.scaler.is_enabled() or self.scaler.get_scale() < SMALLEST_SCALE

    def apply(self) -> dict[str, float]:
        """Change the weights, move the schedule on, drop the gradients; returns the rates that the weights moved at.

        Where fp16 gradients overflowed, the scaler leaves the weights as they are and lowers its scale; the schedule
        stays where it is then, too, and :attr:`skipped` says so.
        """
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.skipped = self.scaler.get_scale() < scale
        rates = learning_rates(self.optimizer)
        if not self.skipped:
            self.scheduler.step()
        self.drop_gradients()
        return rates

    def round(self, step: int) -> None:
        """Give the weights that step ``step`` made numbers of their format."""
        if self.rounding is not None and not self.skipped:
            self.rounding.apply(step)

    def average(self) -> None:
        """Take the new weights into their moving average."""
        if self.ema is not None and not self.skipped:
            self.ema.step()

    def weight_norm(self) -> float:
        """2-norm of all weights together."""
        return float(total_norm(self.parameters))

    def drop_gradients(self) -> None:
        """As if the backward passes since the last step hadn't been."""
        self.optimizer.zero_grad(set_to_none=True)


def make_update(
    groups: list[dict[str, Any]],
    config: RunConfig,
    steps: int,
    device: torch.device,
    typed: frozenset[str] = frozenset(),
) -> Update:
    """Optimiser, schedule and scaler of a configuration.

    Args:
        groups: of the network, see :meth:`lora_trainer.network.network.LoraNetwork.parameter_groups`.
        steps: optimiser steps of the whole run.
        typed: class paths beyond the known packages that were typed on the command line.

    Raises:
        ConfigError: if the optimiser or the schedule can't be made; says what to choose instead.
    """
    optimizer = create_optimizer(groups, config.optimizer, typed)
    parameters = [parameter for group in groups for parameter in group["params"]]
    decay = config.optimizer.ema_decay
    rounding = None
    if config.memory.full_bf16 or config.memory.full_fp16:
        dtype = torch.bfloat16 if config.memory.full_bf16 else torch.float16
        rounding = Rounding(parameters, dtype, config.optimizer.seed)
        rounding.apply(0)
    return Update(
        parameters,
        optimizer,
        create_scheduler(optimizer, config.schedule, steps, typed),
        make_grad_scaler(device, config.memory.mixed_precision),
        config.optimizer.max_grad_norm,
        Ema(parameters, decay) if decay else None,
        rounding,
    )
