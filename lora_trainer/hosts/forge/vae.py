"""Images to latents with the VAE that the WebUI has loaded."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from lora_trainer.hosts.forge.backend import scaled
from lora_trainer.hosts.forge.tensors import ordinary_tensors
from lora_trainer.hosts.tiles import in_tiles


def latent_moments(model: Any, pixels: Tensor, tile: int = 0) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the scaled latents, float32 [B, 4, H/8, W/8]; pixels [B, 3, H, W] in -1…1.

    A VAE in fp16 may overflow (SDXL's first one does); its latents are then computed again in fp32.
    """
    vae = model.forge_objects_original.vae
    first = vae.first_stage_model
    dtype = next(first.parameters()).dtype
    with torch.no_grad(), torch.autocast(torch.device(vae.device).type, enabled=False):
        mean, std = in_tiles(partial(_moments, first), pixels.to(vae.device, dtype), tile)
        if dtype != torch.float32 and not (torch.isfinite(mean).all() and torch.isfinite(std).all()):
            with ordinary_tensors([first], in_fp32=list(first.modules())):
                mean, std = in_tiles(partial(_moments, first), pixels.to(vae.device, torch.float32), tile)
        zero = scaled(model, torch.zeros_like(std))
        return scaled(model, mean).clone(), (scaled(model, std) - zero).clone()


def _moments(first: Any, pixels: Tensor) -> Tensor:
    """Mean and standard deviation [2, B, 4, H/8, W/8]."""
    moments = first.encoder(pixels)
    if getattr(first, "quant_conv", None) is not None:
        moments = first.quant_conv(moments)
    mean, log_variance = moments.float().chunk(2, dim=1)
    return torch.stack([mean, torch.exp(0.5 * log_variance.clamp(-30.0, 20.0))])
