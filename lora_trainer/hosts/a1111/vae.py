"""Images to latents with the VAE that is selected in the WebUI."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from modules import devices
from torch import Tensor, nn

from lora_trainer.hosts.tiles import in_tiles


def latent_moments(model: Any, pixels: Tensor, tile: int = 0) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the scaled latents, float32 [B, 4, H/8, W/8]; pixels [B, 3, H, W] in -1…1.

    A VAE in fp16 may overflow (SDXL's first one does); its latents are then computed again in fp32.
    """
    vae = model.first_stage_model
    with torch.no_grad():
        mean, std = in_tiles(partial(_moments, vae), pixels, tile)
        weight = next(vae.parameters())
        if weight.dtype != torch.float32 and not (torch.isfinite(mean).all() and torch.isfinite(std).all()):
            with _in_fp32(vae):
                mean, std = in_tiles(partial(_moments, vae), pixels, tile)
    scale = float(model.scale_factor)
    return mean * scale, std * scale


def _moments(vae: Any, pixels: Tensor) -> Tensor:
    """Mean and standard deviation [2, B, 4, H/8, W/8]."""
    weight = next(vae.parameters())
    with torch.autocast(weight.device.type, enabled=False):
        moments = vae.quant_conv(vae.encoder(pixels.to(devices.device, weight.dtype))).float()
    mean, log_variance = moments.chunk(2, dim=1)
    return torch.stack([mean, torch.exp(0.5 * log_variance.clamp(-30.0, 20.0))])


@contextmanager
def _in_fp32(vae: nn.Module) -> Iterator[None]:
    """fp16 to fp32 and back is exact; still the very tensors that were there are put back."""
    held = [(tensor, tensor.data) for tensor in (*vae.parameters(), *vae.buffers()) if tensor.is_floating_point()]
    try:
        for tensor, data in held:
            tensor.data = data.float()
        yield
    finally:
        for tensor, data in held:
            tensor.data = data
