"""Training noise. Each function makes the noise of one sample from that sample's own generator.

sd-scripts draws some quantities once per batch. Here they are drawn per sample, so that a sample's noise depends on its
generator only: neither the batch that it happens to be in nor the number of processes changes it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lora_trainer.config import LossConfig


def make_noise(shape: Sequence[int], config: LossConfig, generator: torch.Generator, latents: Tensor) -> Tensor:
    """Noise of one sample, float32 [C, h, w] on the generator's device: white noise, then offset, then pyramid noise.

    Options that are off draw nothing, and the white noise is drawn first: it is the same with and without them.
    Differences from sd-scripts: the random strength of the offset is drawn per sample (there once per batch), and
    pyramid noise is brought to unit standard deviation per sample (there over the whole batch).

    Args:
        shape: (C, h, w), that of ``latents``.
        generator: this sample's own, from :func:`lora_trainer.seeds.torch_generator`.
        latents: the clean latents [C, h, w]; read for ``adaptive_noise_scale`` only.
    """
    noise = torch.randn(tuple(shape), generator=generator, device=generator.device)
    if config.noise_offset:
        noise = noise + _offset(config, generator, latents) * _randn((shape[0], 1, 1), generator)
    if config.multires_noise_iterations:
        noise = pyramid(noise, config.multires_noise_iterations, config.multires_noise_discount, generator)
    return noise


def perturb(noise: Tensor, config: LossConfig, generator: torch.Generator) -> Tensor:
    """Noise for the model's input, [C, h, w]: ε + γ·ξ with fresh ξ; the target keeps ε (Ning et al. 2023, "input
    perturbation"). A random strength is drawn per sample (sd-scripts: once per batch). Without γ the noise itself."""
    if not config.ip_noise_gamma:
        return noise
    gamma = config.ip_noise_gamma
    if config.ip_noise_gamma_random_strength:
        gamma *= _uniform(generator)
    return noise + gamma * _randn(noise.shape, generator).to(noise.device)


def pyramid(noise: Tensor, iterations: int, discount: float, generator: torch.Generator) -> Tensor:
    """Multi-resolution noise (Whitaker 2023, "Multi-Resolution Noise for Diffusion Model Training"), [C, h, w].

    Layer i adds noise of the size divided by rⁱ, r from 2…4, enlarged bilinearly and weighted by discountⁱ; it ends at
    one pixel. The result has unit standard deviation over the sample.
    """
    channels, height, width = noise.shape
    for layer in range(iterations):
        shrink = (2 + 2 * _uniform(generator)) ** layer
        size = (max(1, int(height / shrink)), max(1, int(width / shrink)))
        small = _randn((1, channels, *size), generator)
        noise = noise + F.interpolate(small, (height, width), mode="bilinear")[0] * discount**layer
        if 1 in size:
            break
    return noise / noise.std()


def _offset(config: LossConfig, generator: torch.Generator, latents: Tensor) -> Tensor | float:
    """Strength of the offset, a number or one per channel [C, 1, 1]: o, or max(0, o + a·|mean of the channel|)."""
    strength = config.noise_offset
    if config.noise_offset_random_strength:
        strength *= _uniform(generator)
    if not config.adaptive_noise_scale:
        return strength
    mean = latents.detach().float().mean(dim=(1, 2), keepdim=True).abs().to(generator.device)
    return (strength + config.adaptive_noise_scale * mean).clamp(min=0)


def _randn(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    return torch.randn(tuple(shape), generator=generator, device=generator.device)


def _uniform(generator: torch.Generator) -> float:
    return torch.rand(1, generator=generator, device=generator.device).item()
