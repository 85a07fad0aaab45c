"""Noise, timesteps, target and loss: closed forms from the latents and the noise that two runs give away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.options.run import INPUT, LOSS, Case, Check, Outcome
from torch import Tensor

FIXED = {"min_timestep": 300, "max_timestep": 301}  # one known timestep for all
HUBER = {"loss_type": "huber", "huber_schedule": "constant"}
TIMES = {"timesteps"} | INPUT


def levels(run: Outcome, t: int) -> tuple[float, float]:
    """√ᾱ and √(1−ᾱ) of the checkpoint at a timestep."""
    alpha = float(run.model.alphas_cumprod[t])
    return alpha**0.5, (1 - alpha) ** 0.5


def clean(run: Outcome, **data: Any) -> tuple[Tensor, Tensor]:
    """Latents and noise of the first step: what its noisy inputs at two timesteps have in common.

    Args:
        data: options of the dataset with which the run was made.
    """
    runs = (run.world.run(min_timestep=t, max_timestep=t + 1, **data) for t in (0, 999))
    low, high = (other.model.calls[0].noisy.double() for other in runs)
    (a, b), (c, d) = levels(run, 0), levels(run, 999)
    return (d * low - b * high) / (a * d - b * c), (a * high - c * low) / (a * d - b * c)


def noise_in(run: Outcome) -> Tensor:
    """The noise in the first step's input."""
    call, (latents, _) = run.model.calls[0], clean(run)
    rows = []
    for noisy, latent, t in zip(call.noisy.double(), latents, call.timesteps, strict=True):
        signal, spread = levels(run, t)
        rows.append((noisy - signal * latent) / spread)
    return torch.stack(rows)


def distance(run: Outcome, of: Callable[[Tensor, Tensor], Tensor], v: bool = False, **data: Any) -> list[float]:
    """Mean over each image of ``of(prediction, target)`` in the first step."""
    call, (latents, noise) = run.model.calls[0], clean(run, **data)
    means = []
    for row, t in enumerate(call.timesteps):
        signal, spread = levels(run, t)
        target = signal * noise[row] - spread * latents[row] if v else noise[row]
        means.append(float(of(call.predicted[row].double(), target).mean()))
    return means


def squared(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target) ** 2


def loss_is(of: Callable[[Tensor, Tensor], Tensor], v: bool = False) -> Check:
    """The first loss is the mean of ``of`` over batch and elements, against the unperturbed noise."""

    def check(base: Outcome, changed: Outcome) -> None:
        assert changed.log[0]["loss"] == pytest.approx(sum(distance(changed, of, v)) / 2, rel=2e-4)

    return check


def weighted(weight: Callable[[float], float], v: bool = False) -> Check:
    """The first loss is the squared distance of every image times a function of its signal-to-noise ratio."""

    def check(base: Outcome, changed: Outcome) -> None:
        ratios = [(s / n) ** 2 for s, n in (levels(base, t) for t in changed.model.calls[0].timesteps)]
        parts = [mean * weight(snr) for mean, snr in zip(distance(changed, squared, v), ratios, strict=True)]
        assert changed.log[0]["loss"] == pytest.approx(sum(parts) / 2, rel=2e-4)

    return check


def huber(threshold: float) -> Check:
    return loss_is(lambda p, t: 2 * threshold * ((squared(p, t) + threshold**2).sqrt() - threshold))


def constant_over_each_channel(base: Outcome, changed: Outcome, **also: bool) -> None:
    plain = noise_in(base.world.run())
    added = noise_in(changed) - plain
    torch.testing.assert_close(added, added.mean((2, 3), keepdim=True).expand_as(added), atol=1e-4, rtol=0)
    twice = noise_in(base.world.run(noise_offset=0.6, **also)) - plain
    torch.testing.assert_close(twice, 2 * added, atol=1e-4, rtol=0)


def constant_but_of_random_strength(base: Outcome, changed: Outcome) -> None:
    constant_over_each_channel(base, changed, noise_offset_random_strength=True)


def offset_grows_with_the_latents_mean(base: Outcome, changed: Outcome) -> None:
    plain = noise_in(base.world.run())
    factor = (noise_in(changed) - plain).mean((2, 3)) / (noise_in(base) - plain).mean((2, 3))
    mean = clean(base)[0].mean((2, 3)).abs()
    torch.testing.assert_close(factor, (0.3 + 0.5 * mean) / 0.3, atol=1e-2, rtol=1e-2)


def noise_of_unit_deviation(base: Outcome, changed: Outcome) -> None:
    assert noise_in(changed).std((1, 2, 3)).tolist() == pytest.approx([1, 1], abs=1e-4)


def less_low_frequency(base: Outcome, changed: Outcome) -> None:
    def coarse(run: Outcome) -> float:
        return float(noise_in(run).mean((2, 3)).square().mean())

    assert coarse(changed) != pytest.approx(coarse(base), rel=0.05)


def input_is_noisier_than_the_target(base: Outcome, changed: Outcome) -> None:
    extra = noise_in(changed) - clean(base)[1]
    assert float(extra.std()) == pytest.approx(0.5, rel=0.15)
    loss_is(squared)(base, changed)


def a_share_of_the_perturbation(base: Outcome, changed: Outcome) -> None:
    noise = clean(base)[1]
    share = (noise_in(changed) - noise).flatten(1).std(1) / (noise_in(base) - noise).flatten(1).std(1)
    assert ((share > 0) & (share < 1)).all() and abs(share[0] - share[1]) > 1e-2
    loss_is(squared)(base, changed)


def timesteps_within(low: int, high: int) -> Check:
    def check(base: Outcome, changed: Outcome) -> None:
        assert all(low <= t < high for call in changed.model.calls for t in call.timesteps)
        assert not all(low <= t < high for call in base.model.calls for t in call.timesteps)

    return check


def the_last_step_is_pure_noise(base: Outcome, changed: Outcome) -> None:
    torch.testing.assert_close(changed.model.calls[0].noisy.double(), clean(base)[1], atol=1e-4, rtol=0)


V = {"v_parameterization": True, **FIXED}
HELD = {"diff_output_preservation": 2.0, "preservation_class": "toy", "network_weights": "{world}/rank4.safetensors"}
SECOND = {"batches", "timesteps", "texts", "gradient", "weights", "encoding"}


def held_to_the_base_model(base: Outcome, changed: Outcome) -> None:
    """Each step also predicts the same noisy input for the class's captions, which the LoRA has moved before."""
    calls = changed.model.calls
    assert [len(calls), len(base.model.calls)] == [4, 2]
    assert torch.equal(calls[1].noisy, calls[0].noisy) and not torch.equal(calls[1].context, calls[0].context)
    assert any("toy" in text and "zork" not in text for text in changed.model.captions_encoded)
    with torch.no_grad():
        plain = changed.model.unet(calls[1].noisy, torch.tensor(calls[1].timesteps), calls[1].context).sample
    assert float((calls[1].predicted - plain).abs().max()) > 1e-4


def replaced(word: str) -> Check:
    def check(base: Outcome, changed: Outcome) -> None:
        assert any(word in text for text in changed.model.captions_encoded)
        assert not any(word in text for text in base.model.captions_encoded)

    return check


CASES: dict[str, Case] = {
    "diff_output_preservation": Case(
        2.0, SECOND, {**HELD, "diff_output_preservation": 0.0}, held_to_the_base_model),
    "preservation_class": Case("doll", {"texts", "gradient", "weights"}, HELD, replaced("doll"), idle=[{}]),
    "noise_offset": Case(0.3, INPUT, check=constant_over_each_channel),
    "noise_offset_random_strength": Case(
        True, INPUT, {"noise_offset": 0.3}, constant_but_of_random_strength, idle=[{}]),
    "adaptive_noise_scale": Case(0.5, INPUT, {"noise_offset": 0.3}, offset_grows_with_the_latents_mean),
    "multires_noise_iterations": Case(3, INPUT, check=noise_of_unit_deviation),
    "multires_noise_discount": Case(0.9, INPUT, {"multires_noise_iterations": 3}, less_low_frequency, idle=[{}]),
    "ip_noise_gamma": Case(0.5, INPUT, check=input_is_noisier_than_the_target),
    "ip_noise_gamma_random_strength": Case(
        True, INPUT, {"ip_noise_gamma": 0.5}, a_share_of_the_perturbation, idle=[{}]),
    "min_timestep": Case(870, TIMES, check=timesteps_within(870, 1000)),
    "max_timestep": Case(130, TIMES, check=timesteps_within(0, 130)),
    "v_parameterization": Case(True, LOSS, check=loss_is(squared, v=True)),
    "zero_terminal_snr": Case(True, INPUT, {"min_timestep": 999}, the_last_step_is_pure_noise),
    "loss_type": Case("l1", LOSS, check=loss_is(lambda p, t: (p - t).abs())),
    "huber_schedule": Case("constant", LOSS, {"loss_type": "huber"}, huber(0.1), idle=[{}]),
    "huber_c": Case(0.7, LOSS, HUBER, huber(0.7), idle=[{}]),
    "huber_scale": Case(3, LOSS, HUBER, huber(0.3), idle=[{}]),
    "min_snr_gamma": Case(0.5, LOSS, FIXED, weighted(lambda snr: min(1, 0.5 / snr))),
    "debiased_estimation_loss": Case(True, LOSS, FIXED, weighted(lambda snr: snr**-0.5)),
    "scale_v_pred_loss_like_noise_pred": Case(True, LOSS, V, weighted(lambda snr: snr / (snr + 1), v=True)),
    "v_pred_like_loss": Case(0.5, LOSS, FIXED, weighted(lambda snr: 1 + 0.5 * (snr + 1) / snr)),
}  # fmt: skip
