"""Noise of one sample: what each option adds, and what it must not depend on."""

from __future__ import annotations

import pytest
import torch

from lora_trainer.config import LossConfig
from lora_trainer.seeds import torch_generator
from lora_trainer.training.noise import make_noise, perturb

SHAPE = (4, 12, 10)
LATENTS = torch.randn(SHAPE, generator=torch_generator("latents"))


def noise(config: LossConfig, sample: int = 0, latents: torch.Tensor = LATENTS) -> torch.Tensor:
    return make_noise(SHAPE, config, torch_generator("noise", sample), latents)


WHITE = noise(LossConfig())


def test_plain_noise_is_white() -> None:
    many = torch.stack([noise(LossConfig(), sample) for sample in range(100)])
    assert abs(many.mean().item()) < 0.02
    assert abs(many.std().item() - 1) < 0.02
    assert many.dtype == torch.float32


def test_offset_shifts_each_channel_by_a_constant_of_the_given_strength() -> None:
    shifts = []
    for sample in range(400):
        shift = noise(LossConfig(noise_offset=0.1), sample) - noise(LossConfig(), sample)
        assert shift.std(dim=(1, 2)).max() < 1e-6  # one value per channel
        shifts.append(shift.mean(dim=(1, 2)))
    assert abs(torch.stack(shifts).std().item() - 0.1) < 0.01
    assert len(shifts[0].unique()) == 4


def test_random_strength_is_drawn_per_sample_between_nothing_and_all() -> None:
    """shift = u·o·ξ with u uniform: its variance is o²/3."""
    config = LossConfig(noise_offset=0.1, noise_offset_random_strength=True)
    shifts = torch.stack([(noise(config, n) - noise(LossConfig(), n)).mean(dim=(1, 2)) for n in range(600)])
    assert abs(shifts.std().item() - 0.1 / 3**0.5) < 0.006
    strengths = shifts.std(dim=1)  # of each sample over its channels
    assert strengths.max() > 4 * strengths.median() or strengths.min() < strengths.median() / 4


@pytest.mark.parametrize("scale", [0.5, -0.5])
def test_adaptive_offset_follows_the_mean_of_each_channel(scale: float) -> None:
    means = torch.tensor([0.0, 0.1, -0.3, 2.0])
    latents = means.view(4, 1, 1).expand(SHAPE)
    plain = noise(LossConfig(noise_offset=0.2)) - WHITE
    adaptive = noise(LossConfig(noise_offset=0.2, adaptive_noise_scale=scale), latents=latents) - WHITE
    expected = (0.2 + scale * means.abs()).clamp(min=0) / 0.2  # the same draw, so the quotient is exact
    torch.testing.assert_close((adaptive / plain).mean(dim=(1, 2)), expected, rtol=1e-4, atol=1e-4)


def test_pyramid_noise_has_unit_deviation_and_more_low_frequencies() -> None:
    config = LossConfig(multires_noise_iterations=6, multires_noise_discount=0.5)
    many = torch.stack([noise(config, sample) for sample in range(200)])
    torch.testing.assert_close(many.std(dim=(1, 2, 3)), torch.ones(200), rtol=1e-5, atol=0)
    white = torch.stack([noise(LossConfig(), sample) for sample in range(200)])
    coarse = torch.nn.functional.avg_pool2d
    assert coarse(many, 5).std() > 1.3 * coarse(white, 5).std()


def test_pyramid_noise_follows_its_formula() -> None:
    """Two layers, written out: ε + N + d·up(N at half to a quarter of the size), over its own deviation."""
    generator = torch_generator("noise", 0)
    expected = torch.randn(SHAPE, generator=generator)
    torch.rand(1, generator=generator)  # r of layer 0, where r⁰ = 1
    expected += torch.randn(1, *SHAPE, generator=generator)[0]
    r = 2 + 2 * torch.rand(1, generator=generator).item()
    small = torch.randn(1, 4, int(12 / r), int(10 / r), generator=generator)
    expected += 0.3 * torch.nn.Upsample((12, 10), mode="bilinear")(small)[0]
    ours = noise(LossConfig(multires_noise_iterations=2, multires_noise_discount=0.3))
    torch.testing.assert_close(ours, expected / expected.std(), rtol=1e-6, atol=1e-6)


def test_pyramid_noise_ends_at_one_pixel() -> None:
    assert torch.equal(
        noise(LossConfig(multires_noise_iterations=100)), noise(LossConfig(multires_noise_iterations=10))
    )


def test_white_noise_is_the_same_with_and_without_options() -> None:
    shift = noise(LossConfig(noise_offset=0.05)) - WHITE
    torch.testing.assert_close(shift, shift.mean(dim=(1, 2), keepdim=True).expand(SHAPE), rtol=0, atol=1e-6)


def test_noise_depends_on_its_own_generator_only() -> None:
    config = LossConfig(
        noise_offset=0.1, noise_offset_random_strength=True, adaptive_noise_scale=0.1, multires_noise_iterations=4,
        ip_noise_gamma=0.1, ip_noise_gamma_random_strength=True,
    )  # fmt: skip
    state = torch.random.get_rng_state()
    alone = noise(config, 3)
    torch.manual_seed(7)
    others = [noise(config, sample) for sample in (1, 3, 2)]
    assert torch.equal(alone, others[1])
    assert not torch.equal(alone, others[0])
    torch.random.set_rng_state(state)
    noise(config, 3)
    perturb(alone, config, torch_generator("p"))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_perturbation_adds_fresh_noise_of_the_given_strength() -> None:
    assert perturb(WHITE, LossConfig(), torch_generator("p")) is WHITE
    config = LossConfig(ip_noise_gamma=0.1)
    added = torch.stack([perturb(WHITE, config, torch_generator("p", n)) - WHITE for n in range(100)])
    assert abs(added.std().item() - 0.1) < 0.002
    assert abs(torch.corrcoef(torch.stack((added[0].flatten(), WHITE.flatten())))[0, 1].item()) < 0.2
    config = LossConfig(ip_noise_gamma=0.1, ip_noise_gamma_random_strength=True)
    strengths = torch.stack([(perturb(WHITE, config, torch_generator("p", n)) - WHITE).std() for n in range(300)])
    assert strengths.min() < 0.01
    assert strengths.max() < 0.115  # 0.1 and the spread of a deviation measured on 480 values
    assert abs(strengths.mean().item() - 0.05) < 0.006
