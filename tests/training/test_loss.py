"""Losses and weights against formulas written out here in plain Python."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from lora_trainer.config import LossConfig
from lora_trainer.errors import ConfigError
from lora_trainer.seeds import torch_generator
from lora_trainer.training.diffusion import NoiseSchedule
from lora_trainer.training.loss import check_loss, combine, element_loss, huber_threshold, sample_weights

BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
ALPHAS = torch.cumprod(1 - BETAS, 0)
PLAIN, ZERO = NoiseSchedule.from_alphas(ALPHAS), NoiseSchedule.from_alphas(ALPHAS, True)
T = torch.tensor([0, 3, 250, 700, 999])


def tensors(batch: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch_generator("loss")
    return torch.randn(batch, 4, 6, 8, generator=generator), torch.randn(batch, 4, 6, 8, generator=generator)


def snr(t: int) -> float:
    alpha = math.prod(1 - float(beta) for beta in BETAS[: t + 1])
    return alpha / (1 - alpha)


@pytest.mark.parametrize("loss_type", ["l2", "l1", "huber", "smooth_l1"])
def test_distances(loss_type: str) -> None:
    pred, target = tensors()
    config = LossConfig(loss_type=loss_type, huber_schedule="constant", huber_c=0.3)
    loss = element_loss(pred, target, config, PLAIN, T)
    x = (pred - target)[2, 1, 3, 4].item()
    expected = {
        "l2": x * x,
        "l1": abs(x),
        "huber": 2 * 0.3 * (math.sqrt(x * x + 0.09) - 0.3),
        "smooth_l1": 2 * (math.sqrt(x * x + 0.09) - 0.3),
    }[loss_type]
    assert loss.shape == pred.shape
    assert loss[2, 1, 3, 4].item() == pytest.approx(expected, rel=1e-5)
    half = element_loss(pred.half(), target.half(), config, PLAIN, T)
    assert half.dtype == torch.float32


def test_huber_threshold_by_timestep() -> None:
    exponential = huber_threshold(LossConfig(huber_schedule="exponential", huber_c=0.1), PLAIN, T)
    assert exponential.tolist() == pytest.approx([math.exp(math.log(0.1) * t / 1000) for t in T.tolist()], rel=1e-6)
    by_snr = huber_threshold(LossConfig(huber_schedule="snr", huber_c=0.1), PLAIN, T)
    expected = [0.9 / (1 + math.sqrt(1 / snr(t))) ** 2 + 0.1 for t in T.tolist()]
    assert by_snr.tolist() == pytest.approx(expected, rel=1e-5)
    assert huber_threshold(LossConfig(), ZERO, T)[-1].item() == pytest.approx(0.1)  # pure noise: the threshold itself


@pytest.mark.parametrize("schedule", ["constant", "exponential", "snr"])
def test_huber_scale_multiplies_every_schedule(schedule: str) -> None:
    one = huber_threshold(LossConfig(huber_schedule=schedule), PLAIN, T)
    three = huber_threshold(LossConfig(huber_schedule=schedule, huber_scale=3.0), PLAIN, T)
    torch.testing.assert_close(three, 3 * one)


def test_huber_threshold_is_applied_to_its_own_sample() -> None:
    pred, target = tensors()
    config = LossConfig(loss_type="huber", huber_schedule="exponential", huber_c=0.05)
    together = element_loss(pred, target, config, PLAIN, T)
    for i in range(5):
        alone = element_loss(pred[i : i + 1], target[i : i + 1], config, PLAIN, T[i : i + 1])
        torch.testing.assert_close(together[i], alone[0])  # another number of elements, another vector path


EPSILON = {
    "min_snr_gamma": lambda s: min(s, 5) / s,
    "debiased_estimation_loss": lambda s: 1 / math.sqrt(min(s, 1000)),
    "v_pred_like_loss": lambda s: 1 + 0.7 / (min(s, 1000) / (min(s, 1000) + 1)),
}
V = {
    "min_snr_gamma": lambda s: min(s, 5) / (s + 1),
    "debiased_estimation_loss": lambda s: 1 / (min(s, 1000) + 1),
    "scale_v_pred_loss_like_noise_pred": lambda s: min(s, 1000) / (min(s, 1000) + 1),
}
VALUES = {"min_snr_gamma": 5.0, "v_pred_like_loss": 0.7}


@pytest.mark.parametrize(("kind", "table"), [("epsilon", EPSILON), ("v_prediction", V)])
def test_weights_follow_their_formulas_alone_and_together(kind: str, table: dict) -> None:
    for names in [*[[name] for name in table], list(table)]:
        config = LossConfig(**{name: VALUES.get(name, True) for name in names})
        expected = [math.prod(table[name](snr(t)) for name in names) for t in T.tolist()]
        assert sample_weights(PLAIN, T, kind, config).tolist() == pytest.approx(expected, rel=1e-5), names
    assert sample_weights(PLAIN, T, kind, LossConfig()).tolist() == [1] * 5


def test_min_snr_uses_the_table_after_the_zero_snr_rescale() -> None:
    """At t = 900 the SNR is 0.00297 after the rescale; sd-scripts weights by 0.01435 (its issue #1263)."""
    weights = sample_weights(ZERO, torch.tensor([900, 999]), "v_prediction", LossConfig(min_snr_gamma=5))
    assert weights.tolist() == pytest.approx([0.00297 / 1.00297, 0], rel=2e-3)


@pytest.mark.parametrize(("kind", "table"), [("epsilon", EPSILON), ("v_prediction", V)])
def test_zero_snr_gives_finite_weights_and_gradients(kind: str, table: dict) -> None:
    pred, target = tensors(2)
    t = torch.tensor([998, 999])
    for names in [*[[name] for name in table], list(table)]:
        config = LossConfig(**{name: VALUES.get(name, True) for name in names})
        assert torch.isfinite(sample_weights(ZERO, torch.arange(1000), kind, config)).all(), names
        pred = pred.detach().requires_grad_()
        combine(pred, target, t, ZERO, kind, config, None, torch.ones(2)).mean().backward()
        assert torch.isfinite(pred.grad).all(), names
    assert sample_weights(ZERO, t, "epsilon", LossConfig(min_snr_gamma=5)).tolist() == [1, 1]


def test_weightings_of_the_other_prediction_type_are_refused() -> None:
    with pytest.raises(ConfigError, match="scale_v_pred_loss_like_noise_pred"):
        check_loss("epsilon", LossConfig(scale_v_pred_loss_like_noise_pred=True))
    with pytest.raises(ConfigError, match="v_pred_like_loss"):
        sample_weights(PLAIN, T, "v_prediction", LossConfig(v_pred_like_loss=0.5))
    check_loss("epsilon", LossConfig(v_pred_like_loss=0.5))
    check_loss("v_prediction", LossConfig(scale_v_pred_loss_like_noise_pred=True))


def test_plain_loss_is_the_mean_square_and_prior_weights_multiply() -> None:
    pred, target = tensors()
    loss = combine(pred, target, T, PLAIN, "epsilon", LossConfig(), None, torch.tensor([1, 1, 0.5, 0, 2]))
    expected = [F.mse_loss(pred[i], target[i]).item() * w for i, w in enumerate([1, 1, 0.5, 0, 2])]
    assert loss.tolist() == pytest.approx(expected, rel=1e-5)


def test_a_sample_has_the_same_loss_in_every_batch() -> None:
    pred, target = tensors()
    config = LossConfig(min_snr_gamma=5, loss_type="smooth_l1", debiased_estimation_loss=True)
    masks = torch.rand(5, 1, 6, 8, generator=torch_generator("mask"))
    together = combine(pred, target, T, PLAIN, "epsilon", config, masks, torch.ones(5))
    for i in range(5):
        one = slice(i, i + 1)
        alone = combine(pred[one], target[one], T[one], PLAIN, "epsilon", config, masks[one], torch.ones(1))
        torch.testing.assert_close(together[one], alone, rtol=1e-6, atol=0)


def test_nothing_outside_the_mask_is_learnt() -> None:
    pred, target = tensors(2)
    pred.requires_grad_()
    masks = torch.zeros(2, 1, 48, 64)  # in pixels, eight times the latents
    masks[:, :, :, :32] = 1
    combine(pred, target, T[:2], PLAIN, "epsilon", LossConfig(), masks, torch.ones(2)).mean().backward()
    assert pred.grad[..., 4:].abs().max() == 0
    assert pred.grad[..., :4].abs().min() > 0


def test_masks_are_scaled_by_area_and_do_not_renormalise_the_loss() -> None:
    target = torch.zeros(1, 4, 6, 8)
    masks = torch.zeros(1, 48, 64)  # also accepted without a channel
    masks[:, ::4] = 1  # a quarter of the rows, the same share in every latent pixel
    loss = combine(target + 2, target, T[:1], PLAIN, "epsilon", LossConfig(), masks, torch.ones(1))
    assert loss.item() == pytest.approx(4 * 0.25)
