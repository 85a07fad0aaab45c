"""The training loss: distance, mask, and weights by signal-to-noise ratio. Order and formulas are sd-scripts'."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lora_trainer.config import LossConfig
from lora_trainer.errors import ConfigError
from lora_trainer.families import PredictionType
from lora_trainer.training.diffusion import NoiseSchedule

SNR_CEILING = 1000.0  # sd-scripts' bound, where the SNR multiplies or divides a loss: t = 0 has an SNR above 1000


def check_loss(prediction_type: PredictionType, config: LossConfig) -> None:
    """Refuse weightings that are defined for the other prediction type; call it before the first step.

    Raises:
        ConfigError: names the option.
    """
    if config.scale_v_pred_loss_like_noise_pred and prediction_type != "v_prediction":
        raise ConfigError(
            "scale_v_pred_loss_like_noise_pred is for v-prediction models, but this one predicts noise; switch it off."
        )
    if config.v_pred_like_loss and prediction_type != "epsilon":
        raise ConfigError(
            "v_pred_like_loss is for models that predict noise, but this one predicts v; set v_pred_like_loss to 0."
        )


def element_loss(pred: Tensor, target: Tensor, config: LossConfig, schedule: NoiseSchedule, t: Tensor) -> Tensor:
    """Loss of every element in float32, [B, C, h, w] like ``pred`` and ``target``; ``t`` [B]."""
    pred, target = pred.float(), target.float()
    if config.loss_type == "l2":
        return F.mse_loss(pred, target, reduction="none")
    if config.loss_type == "l1":
        return F.l1_loss(pred, target, reduction="none")
    delta = huber_threshold(config, schedule, t).to(pred.device, torch.float32).view(-1, *[1] * (pred.ndim - 1))
    distance = 2 * (((pred - target).square() + delta.square()).sqrt() - delta)
    return delta * distance if config.loss_type == "huber" else distance


def huber_threshold(config: LossConfig, schedule: NoiseSchedule, t: Tensor) -> Tensor:
    """The pseudo-Huber threshold δ at ``t`` [B], float32 on its device (Khrapov et al. 2024, "scheduled Huber loss").

    ``huber_scale`` multiplies every schedule; sd-scripts forgets it for ``snr``.
    """
    c = config.huber_c
    if config.huber_schedule == "constant":
        delta = torch.full(t.shape, c, device=t.device)
    elif config.huber_schedule == "exponential":
        delta = torch.exp(t.float() * (math.log(c) / len(schedule)))
    else:
        delta = (1 - c) / (1 + schedule.sigma(t)).square() + c
    return delta * config.huber_scale


def sample_weights(schedule: NoiseSchedule, t: Tensor, prediction_type: PredictionType, config: LossConfig) -> Tensor:
    """Weight of each sample by its SNR, [B] float32 on ``t``'s device. All that are switched on multiply.

    Min-SNR (Hang et al. 2023), v-loss scaled like noise prediction, v-prediction-like loss, debiased estimation (Yu et
    al. 2023). Where a formula divides by the SNR of a zero-SNR step, min-SNR takes its limit 1, and the others
    divide by :attr:`NoiseSchedule.snr_floor` at least, so that no weight is infinite or outweighs all others.
    """
    check_loss(prediction_type, config)
    is_v = prediction_type == "v_prediction"
    snr = schedule.snr(t)
    bounded = snr.clamp(max=SNR_CEILING)
    positive = bounded.clamp(min=schedule.snr_floor)
    weights = torch.ones_like(snr)
    if config.min_snr_gamma:
        # min(SNR, γ)/SNR written as min(1, γ/SNR): γ/0 is infinite, so the minimum is the limit 1
        gamma = torch.full_like(snr, config.min_snr_gamma)
        weights = torch.minimum(snr, gamma) / (snr + 1) if is_v else (gamma / snr).clamp(max=1)
    if config.scale_v_pred_loss_like_noise_pred:
        weights = weights * bounded / (bounded + 1)
    if config.v_pred_like_loss:
        weights = weights * (1 + config.v_pred_like_loss * (positive + 1) / positive)
    if config.debiased_estimation_loss:
        weights = weights / (bounded + 1 if is_v else positive.sqrt())
    return weights


def combine(
    pred: Tensor,
    target: Tensor,
    t: Tensor,
    schedule: NoiseSchedule,
    prediction_type: PredictionType,
    config: LossConfig,
    masks: Tensor | None,
    prior_weights: Tensor,
) -> Tensor:
    """Loss of each sample, [B] float32 on ``pred``'s device; its mean over the batch is what is differentiated.

    Args:
        pred, target: [B, C, h, w].
        t: [B] int64.
        masks: [B, 1, H, W] or [B, H, W] from 0 to 1 at any resolution, or None. Scaled to h×w by area. The loss is not
            divided by the mask's area, so a picture with a small mask counts little (as in sd-scripts).
        prior_weights: [B], 1 for training images, ``prior_loss_weight`` for regularisation images.
    """
    loss = element_loss(pred, target, config, schedule, t)
    if masks is not None:
        masks = (masks if masks.ndim == 4 else masks.unsqueeze(1)).to(loss.device, torch.float32)
        loss = loss * F.interpolate(masks, loss.shape[2:], mode="area")
    weights = sample_weights(schedule, t, prediction_type, config).to(loss.device, torch.float32)
    return loss.flatten(1).mean(1) * prior_weights.to(loss.device, torch.float32) * weights
