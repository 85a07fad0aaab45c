"""The noise schedule against diffusers' schedulers, closed forms and published figures."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lora_trainer.config import LossConfig
from lora_trainer.errors import UnsupportedModelError
from lora_trainer.seeds import torch_generator
from lora_trainer.training.diffusion import NoiseSchedule, sample_timesteps
from lora_trainer.training.loss import sample_weights

BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2  # Stable Diffusion's scaled_linear
ALPHAS = torch.cumprod(1 - BETAS, 0)
STEPS = torch.tensor([0, 1, 2, 17, 500, 900, 998, 999])


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch_generator("test")
    return torch.randn(8, 4, 6, 5, generator=generator), torch.randn(8, 4, 6, 5, generator=generator)


def diffusers_schedule(zero_snr: bool = False, kind: str = "DDPMScheduler") -> object:
    diffusers = pytest.importorskip("diffusers")
    return getattr(diffusers, kind)(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        prediction_type="v_prediction", rescale_betas_zero_snr=zero_snr,
    )  # fmt: skip


@pytest.mark.parametrize("zero_snr", [False, True])
def test_noisy_latents_and_velocity_are_those_of_diffusers(zero_snr: bool) -> None:
    peer = diffusers_schedule(zero_snr)
    schedule = NoiseSchedule.from_alphas(ALPHAS.float(), zero_snr)
    x0, noise = batch()
    # 2e-4 with the rescale: diffusers' float32 product of 1000 factors loses that much near the end
    tolerance = {"rtol": 0, "atol": 2e-4 if zero_snr else 1e-5}
    torch.testing.assert_close(schedule.add_noise(x0, noise, STEPS), peer.add_noise(x0, noise, STEPS), **tolerance)
    velocity = schedule.target(x0, noise, STEPS, "v_prediction")
    torch.testing.assert_close(velocity, peer.get_velocity(x0, noise, STEPS), **tolerance)


def test_zero_snr_table_is_that_of_diffusers() -> None:
    ours = NoiseSchedule.from_alphas(ALPHAS, True).alphas_cumprod
    torch.testing.assert_close(ours.float(), diffusers_schedule(True).alphas_cumprod, rtol=0, atol=1e-6)
    euler = diffusers_schedule(True, "EulerDiscreteScheduler").alphas_cumprod  # sets its last one to 2**-24 by hand
    torch.testing.assert_close(ours.float()[:-1], euler[:-1], rtol=0, atol=1e-6)


def test_zero_snr_rescale_keeps_the_first_step_and_empties_the_last() -> None:
    ours = NoiseSchedule.from_alphas(ALPHAS, True).alphas_cumprod
    assert ours[-1] == 0
    torch.testing.assert_close(ours[0], ALPHAS[0], rtol=1e-14, atol=0)
    assert bool((ours.diff() < 0).all())
    torch.testing.assert_close(NoiseSchedule.from_alphas(ours, True).alphas_cumprod, ours, rtol=1e-14, atol=0)


def test_snr_is_taken_after_the_rescale() -> None:
    """The figures are those measured for sd-scripts' issue #1263: first its wrong ones, then the right ones."""
    before, after = NoiseSchedule.from_alphas(ALPHAS), NoiseSchedule.from_alphas(ALPHAS, True)
    t = torch.tensor([900, 999])
    torch.testing.assert_close(before.snr(t), torch.tensor([0.01435, 0.00468]), rtol=0, atol=5e-6)
    torch.testing.assert_close(after.snr(t), torch.tensor([0.00297, 0.0]), rtol=0, atol=5e-6)
    assert after.sigma(t)[1] == float("inf")
    assert before.snr_floor == pytest.approx(0.00468, abs=5e-6) and after.snr_floor == 0.00468


@pytest.mark.parametrize("option", [{"debiased_estimation_loss": True}, {"v_pred_like_loss": 1.0}])
def test_no_ten_timesteps_outweigh_the_others(option: dict[str, Any]) -> None:
    """With the ratios themselves, the last ten of a zero-SNR schedule would have 53 % and 97 % of all the weight."""
    shares = []
    for zero in (False, True):
        schedule = NoiseSchedule.from_alphas(ALPHAS, zero)
        weights = sample_weights(schedule, torch.arange(1000), "epsilon", LossConfig(**option))
        shares.append(float(weights[-10:].sum() / weights.sum()))
    assert shares[1] < shares[0] < 0.1
    snr = schedule.snr(torch.tensor([500]))  # far from the end, the formula as it is
    expected = snr.rsqrt() if "debiased_estimation_loss" in option else 1 + (snr + 1) / snr
    weight = sample_weights(schedule, torch.tensor([500]), "epsilon", LossConfig(**option))
    torch.testing.assert_close(weight, expected)


def test_snr_is_that_of_diffusers() -> None:
    try:
        utils = pytest.importorskip("diffusers.training_utils")
    except AttributeError:  # diffusers 0.31 looks there for a part of transformers that 4.30 hasn't got
        pytest.skip("this diffusers' training_utils can't be imported beside this transformers")
    expected = utils.compute_snr(diffusers_schedule(), STEPS)
    torch.testing.assert_close(NoiseSchedule.from_alphas(ALPHAS).snr(STEPS), expected, rtol=1e-3, atol=0)  # 1-ᾱ in fp32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_noise_level_is_right_at_small_timesteps_with_half_precision_latents(dtype: torch.dtype) -> None:
    t = torch.arange(4)
    noisy = NoiseSchedule.from_alphas(ALPHAS).add_noise(torch.zeros(4, 1, 1, 1, dtype=dtype), torch.ones(4, 1, 1, 1), t)
    assert noisy.dtype == torch.float32
    torch.testing.assert_close(noisy.flatten().double(), (1 - ALPHAS[:4]).sqrt(), rtol=1e-6, atol=0)


def test_the_clean_latents_follow_from_noisy_ones_and_velocity() -> None:
    schedule, (x0, noise) = NoiseSchedule.from_alphas(ALPHAS), batch()
    velocity = schedule.target(x0, noise, STEPS, "v_prediction")
    alphas = ALPHAS[STEPS].float().view(-1, 1, 1, 1)
    recovered = alphas.sqrt() * schedule.add_noise(x0, noise, STEPS) - (1 - alphas).sqrt() * velocity
    torch.testing.assert_close(recovered, x0, rtol=0, atol=2e-6)
    assert torch.equal(schedule.target(x0, noise, STEPS, "epsilon"), noise)


def test_timesteps_are_uniform_in_their_range_and_leave_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    t = sample_timesteps(torch_generator("t"), 20_000, 10, 20)
    assert t.dtype == torch.int64
    assert torch.equal(torch.random.get_rng_state(), before)
    counts = torch.bincount(t, minlength=20)
    assert counts[:10].sum() == 0
    assert len(counts) == 20
    assert bool(((counts[10:] - 2000).abs() < 200).all())  # 4.7 standard deviations
    assert torch.equal(
        sample_timesteps(torch_generator("t"), 5, 0, 1000), sample_timesteps(torch_generator("t"), 5, 0, 1000)
    )


@pytest.mark.parametrize(
    "table",
    [ALPHAS.flip(0), ALPHAS.view(10, 100), torch.full((9,), float("nan")), torch.ones(9), ALPHAS[:1], -ALPHAS.flip(0)],
)
def test_what_is_no_noise_schedule_is_refused(table: torch.Tensor) -> None:
    with pytest.raises(UnsupportedModelError, match="alphas_cumprod"):
        NoiseSchedule.from_alphas(table)
