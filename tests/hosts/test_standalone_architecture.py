"""The published models are recognised from shapes alone, without a config beside the file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from lora_trainer.families import Family
from lora_trainer.hosts.standalone.architecture import text_layouts, unet_arguments, vae_arguments
from lora_trainer.hosts.standalone.checkpoint_file import CheckpointFile
from lora_trainer.hosts.standalone.detect import UNET, VAE, Detected, refused_kind
from lora_trainer.hosts.standalone.ldm_config import LdmConfig
from lora_trainer.hosts.standalone.ldm_keys import unet_state, vae_state
from tests.support.tiny_checkpoints import clip_names, ldm_unet, ldm_vae, open_clip_names

UNETS = {  # as diffusers' configs of the published models have them
    "sd1": {"cross_attention_dim": 768, "attention_head_dim": 8},
    "sd2": {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True},
    "sdxl": {
        "cross_attention_dim": 2048, "attention_head_dim": (5, 10, 20), "use_linear_projection": True,
        "block_out_channels": (320, 640, 1280), "transformer_layers_per_block": (1, 2, 10),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}  # fmt: skip
FIELDS = (
    "hidden_size", "intermediate_size", "layers", "heads", "activation", "projection", "pad", "output", "final_norm",
)  # fmt: skip
CLIP_L, CLIP_H, CLIP_G = (768, 3072, 12, 12), (1024, 4096, 24, 16), (1280, 5120, 32, 20)


def text_encoder(width: int, inner: int, layers: int, heads: int) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=49408, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads,
    )  # fmt: skip
    return CLIPTextModel(config)


def published(family: Family) -> tuple[Detected, dict[str, torch.Size], dict[str, torch.Size]]:
    """A file with the shapes of a published model, and those of its UNet and VAE under diffusers' names."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**UNETS[family])
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )  # fmt: skip
        tensors = {UNET + k: v for k, v in ldm_unet(unet).items()} | {VAE + k: v for k, v in ldm_vae(vae).items()}
        if family == "sd1":
            tensors |= {f"cond_stage_model.transformer.{k}": v for k, v in clip_names(text_encoder(*CLIP_L)).items()}
        elif family == "sd2":
            names = open_clip_names(text_encoder(*CLIP_H), torch.empty(1024, 1024), extra_layer=False)
            tensors |= {f"cond_stage_model.model.{k}": v for k, v in names.items()}
        else:
            first = clip_names(text_encoder(*CLIP_L))
            second = open_clip_names(text_encoder(*CLIP_G), torch.empty(1280, 1280), extra_layer=False)
            tensors |= {f"conditioner.embedders.0.transformer.{k}": v for k, v in first.items()}
            tensors |= {f"conditioner.embedders.1.model.{k}": v for k, v in second.items()}
    file = CheckpointFile(Path("model.safetensors"), {k: tuple(v.shape) for k, v in tensors.items()}, {}, tensors)
    shapes = [{k: v.shape for k, v in module.state_dict().items()} for module in (unet, vae)]
    return Detected(file, LdmConfig(), family, "epsilon", False), shapes[0], shapes[1]


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_unet_and_vae(family: Family) -> None:
    found, unet_shapes, vae_shapes = published(family)
    assert refused_kind(found.file.shapes) is None
    arguments = unet_arguments(found)
    for name, value in UNETS[family].items():
        heads = (8,) * 4 if name == "attention_head_dim" and value == 8 else value
        assert arguments[name] == heads
    with torch.device("meta"):
        unet = UNet2DConditionModel(**arguments)
        vae = AutoencoderKL(**vae_arguments(found, found.file, VAE))
    assert {k: v.shape for k, v in unet.state_dict().items()} == unet_shapes
    assert {k: v.shape for k, v in vae.state_dict().items()} == vae_shapes
    assert {k: v.shape for k, v in unet_state(found.file.read(UNET), UNET, 2).items()} == unet_shapes
    assert {k: v.shape for k, v in vae_state(found.file.read(VAE), VAE, 4).items()} == vae_shapes
    assert vae.config.scaling_factor == (0.13025 if family == "sdxl" else 0.18215)


def test_text_encoders() -> None:
    expected = {
        "sd1": [(768, 3072, 12, 12, "quick_gelu", 0, 49407, -1, True)],
        "sd2": [(1024, 4096, 23, 16, "gelu", 0, 0, -1, True)],
        "sdxl": [
            (768, 3072, 12, 12, "quick_gelu", 0, 49407, 11, False),
            (1280, 5120, 32, 20, "gelu", 1280, 0, 31, False),
        ],
    }
    for family, rows in expected.items():
        found, _, _ = published(family)  # type: ignore[arg-type]
        layouts = text_layouts(found)
        assert [tuple(getattr(t, name) for name in FIELDS) for t in layouts] == rows
        assert [t.clip_skip for t in layouts] == [family == "sd1"] * len(rows)
