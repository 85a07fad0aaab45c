"""The tiny autoencoder: its layout and its training.

Latents (4, 8, 8) are meant to be easy to diffuse: three channels are held to the whitened mean colour of each 8 px
cell, the fourth is free. GroupNorm of 64 channels in 32 groups would divide away what a flat picture says (two numbers
a group); training with a large epsilon keeps it, and `fold_epsilon` turns that into weights for the usual one.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from lora_trainer.demo.muon import optimizers
from lora_trainer.demo.scenes import picture_batch

WIDTH = 64
TRAIN_EPSILON = 0.1  # GroupNorm epsilon while training
FILE_EPSILON = 1e-6  # what every SD 1.x loader uses
NOISE = 0.08  # standard deviation of the posterior, in units of a latent channel
SCALE = 0.18215


def make_vae() -> AutoencoderKL:
    """An untrained autoencoder: factor 8, 4 latent channels, 64 channels everywhere, no residual block in the encoder's
    levels and one in each of the decoder's."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(WIDTH,) * 4,
        layers_per_block=0,
        latent_channels=4,
        norm_num_groups=32,
        sample_size=64,
        scaling_factor=SCALE,
    )


def set_epsilon(vae: nn.Module, epsilon: float) -> None:
    """Set the epsilon of every GroupNorm."""
    for module in vae.modules():
        if isinstance(module, nn.GroupNorm):
            module.eps = epsilon


def whitening(rng: np.random.Generator, count: int = 512) -> tuple[Tensor, Tensor]:
    """Matrix (3, 3) and mean (3,) that whiten the mean colours of 8 px cells over the captioned world."""
    cells = F.avg_pool2d(torch.from_numpy(picture_batch(count, rng, 1.0)), 8).permute(1, 0, 2, 3).flatten(1).double()
    mean = cells.mean(1)
    values, vectors = torch.linalg.eigh(torch.cov(cells))
    return (vectors / values.sqrt()).T.float(), mean.float()


def picture_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 + L2 + L1 of the differences of neighbours."""
    error = output - target
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return error.abs().mean() + error.square().mean() + edges


def learning_rate(step: int, steps: int, peak: float, warmup: int = 100, hold: float = 0.3) -> float:
    """Linear warm-up, flat for a share ``hold`` of the steps, then half a cosine to 1 % of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = max(0.0, (step - hold * steps) / ((1 - hold) * steps))
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


@torch.no_grad()
def average(target: nn.Module, source: nn.Module, decay: float) -> None:
    """Exponential moving average of the parameters, in place."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), 1 - decay)


def train_vae(
    steps: int,
    encoder_steps: int,
    seed: int,
    batch: int = 8,
    peak: float = 2e-3,
    known: float = 0.4,
    schedule: int = 4000,
    report: Callable[[str], None] = lambda line: None,
) -> AutoencoderKL:
    """Train for ``steps`` at rates made for ``schedule``; returns the averaged weights, better than the last ones.

    After ``encoder_steps`` the encoder stays as it is (its average) and only the decoder learns. The latents z are in
    their own units, about zero mean and unit variance; `fold_scale` comes later.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    matrix, mean = whitening(rng)
    vae = make_vae()
    set_epsilon(vae, TRAIN_EPSILON)
    smooth = copy.deepcopy(vae).requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    pairs = optimizers(vae, 2.5 * peak, peak, ("encoder.conv_in", "conv_out", "quant_conv"))
    total, seen = 0.0, 0
    for step in range(steps):
        for optimizer, top in pairs:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, schedule, top)
        pictures = torch.from_numpy(picture_batch(batch, rng, known))
        if step == encoder_steps:
            for part in ("encoder", "quant_conv"):
                getattr(vae, part).load_state_dict(getattr(smooth, part).state_dict())
                getattr(vae, part).requires_grad_(False)
        z = vae.quant_conv(vae.encoder(pictures))[:, :4]
        noisy = z + NOISE * torch.randn(z.shape, generator=generator)
        loss = picture_loss(vae.decoder(vae.post_quant_conv(noisy)), pictures)
        total, seen = total + float(loss.detach()), seen + 1
        if step < encoder_steps:
            cells = torch.einsum("ij,bjhw->bihw", matrix, F.avg_pool2d(pictures, 8) - mean[:, None, None])
            loss = loss + 0.3 * F.mse_loss(z[:, :3], cells) + 0.003 * z[:, 3].square().mean()
        vae.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        for optimizer, _ in pairs:
            optimizer.step()
        average(smooth, vae, min(0.998, (step + 1) / (step + 10)))
        if (step + 1) % 100 == 0:
            report(f"vae step {step + 1}/{steps} loss {total / seen:.4f} all {float(loss.detach()):.4f}")
            total, seen = 0.0, 0
    return smooth
