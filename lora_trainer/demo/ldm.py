"""From diffusers' names to those of an SD 1.x checkpoint, and the checkpoint's config."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor]

UNET = [  # (diffusers, ldm) patterns; block numbers are worked out in `unet_key`
    (r"^conv_in\.", "input_blocks.0.0."),
    (r"^time_embedding\.linear_1\.", "time_embed.0."),
    (r"^time_embedding\.linear_2\.", "time_embed.2."),
    (r"^conv_norm_out\.", "out.0."),
    (r"^conv_out\.", "out.2."),
    (r"^mid_block\.resnets\.0\.", "middle_block.0."),
    (r"^mid_block\.attentions\.0\.", "middle_block.1."),
    (r"^mid_block\.resnets\.1\.", "middle_block.2."),
]
UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def unet_key(key: str) -> str:
    """Name in `model.diffusion_model` of a weight of a UNet2DConditionModel with two residual blocks a level."""
    residual = "resnets" in key
    for pattern, name in UNET:
        key = re.sub(pattern, name, key)
    if match := re.match(r"^(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)$", key):
        way, level, kind, j, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
        if kind == "downsamplers":
            key = f"input_blocks.{3 * level + 3}.0." + rest.replace("conv.", "op.")
        elif kind == "upsamplers":
            key = f"output_blocks.{3 * level + 2}.2.{rest}"
        else:
            block = f"input_blocks.{1 + 3 * level + j}" if way == "down" else f"output_blocks.{3 * level + j}"
            key = f"{block}.{0 if kind == 'resnets' else 1}.{rest}"
    if not residual:
        return key
    return re.sub(r"(?<=\.)(" + "|".join(UNET_RESNET) + r")(?=\.)", lambda m: UNET_RESNET[m[0]], key)


def vae_key(key: str) -> str:
    """Name in `first_stage_model` of a weight of an AutoencoderKL with four levels."""
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    if "mid_block.attentions.0." in key:
        for name, other in VAE_ATTENTION.items():
            key = key.replace(f"attentions.0.{name}.", f"attentions.0.{other}.")
        key = key.replace("mid_block.attentions.0.", "mid.attn_1.")
    key = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", key)
    key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{3 - int(m[1])}.block.{m[2]}", key)
    key = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample", key)
    return key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")


def to_ldm(unet: State, vae: State, text_encoder: State, dtype: torch.dtype = torch.float16) -> State:
    """One SD 1.x state dict from three diffusers/transformers ones."""
    result = {f"model.diffusion_model.{unet_key(k)}": v for k, v in unet.items()}
    for key, value in vae.items():
        name = vae_key(key)
        if ".attn_1." in name and value.ndim == 2:
            value = value[:, :, None, None]  # ldm's attention is made of 1x1 convolutions
        result[f"first_stage_model.{name}"] = value
    for key, value in text_encoder.items():
        if not key.endswith("position_ids"):
            key = key if key.startswith("text_model.") else f"text_model.{key}"
            result[f"cond_stage_model.transformer.{key}"] = value
    return {k: v.detach().to(dtype).contiguous() for k, v in result.items()}


def config(unet: dict[str, Any], vae: dict[str, Any], tokenizer: str) -> dict[str, Any]:
    """An SD 1.x inference config (v1-inference.yaml) with these widths.

    ``unet``: model_channels, channel_mult, num_heads, context_dim. ``vae``: ch, ch_mult, num_res_blocks, resolution.
    ``tokenizer``: the folder of the text encoder's config and vocabulary; A1111 looks it up from its own folder, so an
    installed copy needs an absolute path.
    """
    identity = {"target": "torch.nn.Identity"}
    return {
        "model": {
            "base_learning_rate": 1.0e-04,
            "target": "ldm.models.diffusion.ddpm.LatentDiffusion",
            "params": {
                "linear_start": 0.00085,
                "linear_end": 0.0120,
                "num_timesteps_cond": 1,
                "log_every_t": 200,
                "timesteps": 1000,
                "first_stage_key": "jpg",
                "cond_stage_key": "txt",
                "image_size": vae["resolution"] // 8,
                "channels": 4,
                "cond_stage_trainable": False,
                "conditioning_key": "crossattn",
                "monitor": "val/loss_simple_ema",
                "scale_factor": 0.18215,
                "use_ema": False,
                "unet_config": {
                    "target": "ldm.modules.diffusionmodules.openaimodel.UNetModel",
                    "params": {
                        "image_size": 32,  # unused
                        "in_channels": 4,
                        "out_channels": 4,
                        "model_channels": unet["model_channels"],
                        "attention_resolutions": [2**i for i in range(len(unet["channel_mult"]))],
                        "num_res_blocks": 2,
                        "channel_mult": unet["channel_mult"],
                        "num_heads": unet["num_heads"],
                        "use_spatial_transformer": True,
                        "transformer_depth": 1,
                        "context_dim": unet["context_dim"],
                        "use_checkpoint": False,
                        "legacy": False,
                    },
                },
                "first_stage_config": {
                    "target": "ldm.models.autoencoder.AutoencoderKL",
                    "params": {
                        "embed_dim": 4,
                        "monitor": "val/rec_loss",
                        "ddconfig": {
                            "double_z": True,
                            "z_channels": 4,
                            "resolution": vae["resolution"],
                            "in_channels": 3,
                            "out_ch": 3,
                            "ch": vae["ch"],
                            "ch_mult": vae["ch_mult"],
                            "num_res_blocks": vae["num_res_blocks"],
                            "attn_resolutions": [],
                            "dropout": 0.0,
                        },
                        "lossconfig": identity,
                    },
                },
                "cond_stage_config": {
                    "target": "ldm.modules.encoders.modules.FrozenCLIPEmbedder",
                    "params": {"version": tokenizer},
                },
            },
        }
    }
