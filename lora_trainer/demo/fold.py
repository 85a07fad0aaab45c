"""Turn the autoencoder as trained into the one in the file: same pictures, usual epsilon and usual latent scale."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from lora_trainer.demo.vae import FILE_EPSILON, NOISE, SCALE, TRAIN_EPSILON, set_epsilon


@torch.no_grad()
def fold_epsilon(vae: AutoencoderKL) -> None:
    """Shrink what enters each GroupNorm by s and epsilon by s * s: (s x - s m) / sqrt(s² v + s² e) is unchanged.

    The residual stream as a whole becomes s times smaller. What writes to it from normalised values gets weights and
    bias times s; what reads it linearly and writes it back (shortcuts, resampling) only its bias.
    """
    s = (FILE_EPSILON / TRAIN_EPSILON) ** 0.5
    for name, module in vae.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        leaf = name.split(".", 1)[-1]
        if leaf == "conv_in" or leaf.endswith((".conv1", ".conv2", ".to_out.0")):
            module.weight.mul_(s)
            module.bias.mul_(s)  # type: ignore[union-attr]
        elif "samplers." in leaf or leaf.endswith("conv_shortcut"):
            module.bias.mul_(s)  # type: ignore[union-attr]
    set_epsilon(vae, FILE_EPSILON)


@torch.no_grad()
def fold_scale(vae: AutoencoderKL, mean: Tensor, deviation: Tensor) -> None:
    """Let latents x 0.18215 have zero mean and unit variance: an affine map in the 1x1 convolutions around them.

    ``mean``, ``deviation``: (4,) of the latents as trained. The posterior's log variance becomes that of the noise.
    """
    scale = 1 / (SCALE * deviation)
    outer = vae.quant_conv
    outer.weight[:4] *= scale[:, None, None, None]
    outer.bias[:4] = (outer.bias[:4] - mean) * scale  # type: ignore[index]
    outer.weight[4:] = 0
    outer.bias[4:] = 2 * torch.log(NOISE * scale)  # type: ignore[index]
    inner = vae.post_quant_conv
    weight = inner.weight[:, :, 0, 0]
    inner.bias += weight @ mean  # type: ignore[operator]
    inner.weight[:] = (weight / scale)[:, :, None, None]
