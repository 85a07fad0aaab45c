"""Tiny random SD 2.x and SDXL checkpoints that a real WebUI loads, with as many layers as the published ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

from lora_trainer.demo import TOKENIZER
from tests.support.tiny_checkpoints import HEADS, WIDTH, Kind, Modules, config, make_modules, state_dict

BASES = {
    "sdxl": "repositories/generative-models/configs/inference/sd_xl_base.yaml",
    "sd2v": "repositories/stable-diffusion-stability-ai/configs/stable-diffusion/v2-inference-v.yaml",
}
TEXT_LAYERS = {"sdxl": 32, "sd2v": 24}
FREE = ("alphas_cumprod", "model_ema.decay")  # leftovers of real files that would replace the model's own schedule


def make_checkpoint(kind: Kind, folder: Path, webui: Path, architectures: Path) -> Path:
    """Write ``tiny-KIND.safetensors`` and its config.

    Args:
        webui: the installation, whose own config is taken and made small.
        architectures: where the text encoder's open_clip architecture goes; the probe makes it known.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"tiny-{kind}.safetensors"
    save_file({k: v for k, v in state_dict(kind, make_modules(kind)).items() if k not in FREE}, path)
    arch = f"lora-trainer-tiny-{kind}"
    _write_architecture(architectures / f"{arch}.json", TEXT_LAYERS[kind])
    base = yaml.safe_load((webui / BASES[kind]).read_text("utf-8"))
    params, own = base["model"]["params"], config(kind)["model"]["params"]
    ddconfig = own["first_stage_config"]["params"]["ddconfig"]
    params["first_stage_config"]["params"]["ddconfig"].update(ddconfig, attn_type="vanilla")
    if kind == "sdxl":
        unet = params["network_config"]["params"]
        unet.update(own["network_config"]["params"], spatial_transformer_attn_type="softmax")
        embedders = params["conditioner_config"]["params"]["emb_models"]
        embedders[0]["params"].update(version=str(_clip(folder / "clip")), layer_idx=11)
        embedders[1]["params"].update(arch=arch, version="none")
    else:
        unet = params["unet_config"]["params"]
        unet.update(own["unet_config"]["params"], use_fp16=False)
        params["cond_stage_config"]["params"].update(arch=arch, version="none")
    unet["use_checkpoint"] = False
    path.with_suffix(".yaml").write_text(yaml.safe_dump(base), encoding="utf-8")
    return path


def make_true_size(folder: Path) -> Path:
    """Write ``random-sd1.safetensors``: SD 1.5's shapes with random weights, two gigabytes."""
    path = folder / "random-sd1.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(cross_attention_dim=768)
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )  # fmt: skip
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
                hidden_act="quick_gelu", projection_dim=768, eos_token_id=49407,
            )
        )  # fmt: skip
    weights = state_dict("sd1", Modules(unet, vae, (text,), None))
    save_file({key: value for key, value in weights.items() if key not in FREE}, path)
    return path


def _write_architecture(path: Path, layers: int) -> None:
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    text: dict[str, Any] = {"context_length": 77, "vocab_size": 49408, "width": WIDTH, "heads": HEADS, "layers": layers}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"embed_dim": WIDTH, "vision_cfg": vision, "text_cfg": text}), encoding="utf-8")


def _clip(folder: Path) -> Path:
    """The first encoder's folder: its sizes, and the tokenizer of the embedded checkpoint."""
    shutil.copytree(TOKENIZER, folder, dirs_exist_ok=True)
    sizes = json.loads((folder / "config.json").read_text("utf-8"))
    sizes.update(
        hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=12, num_attention_heads=HEADS,
        projection_dim=WIDTH, hidden_act="quick_gelu",
    )  # fmt: skip
    (folder / "config.json").write_text(json.dumps(sizes), encoding="utf-8")
    return folder
