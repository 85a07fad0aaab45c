"""Write the checkpoint and its config."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import yaml
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextModel

from lora_trainer.demo import CHECKPOINT, CONFIG, TOKENIZER
from lora_trainer.demo.fold import fold_epsilon, fold_scale
from lora_trainer.demo.ldm import config, to_ldm
from lora_trainer.demo.unet import HEADS, WIDTHS
from lora_trainer.demo.vae import WIDTH


def write_config(path: Path, tokenizer: str) -> None:
    """The checkpoint's yaml; ``tokenizer`` is the folder as the reader will look it up."""
    unet = {
        "model_channels": WIDTHS[0],
        "channel_mult": [w // WIDTHS[0] for w in WIDTHS],
        "num_heads": HEADS,
        "context_dim": 32,
    }
    vae = {"ch": WIDTH, "ch_mult": [1, 1, 1, 1], "num_res_blocks": 0, "resolution": 64}
    temporary = path.with_name(path.name + ".tmp")
    text = yaml.safe_dump(config(unet, vae, tokenizer), sort_keys=False, default_flow_style=None)
    temporary.write_text(text, "utf-8")
    temporary.replace(path)


def write_checkpoint(
    directory: Path,
    vae: AutoencoderKL,
    mean: Tensor,
    deviation: Tensor,
    unet: UNet2DConditionModel,
    encoder: CLIPTextModel,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Fold and convert; writes tiny-world.safetensors (fp16) and tiny-world.yaml. ``mean``, ``deviation``: (4,)."""
    vae = copy.deepcopy(vae)
    fold_epsilon(vae)
    fold_scale(vae, mean, deviation)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / CHECKPOINT.name
    temporary = path.with_name(path.name + ".tmp")
    state = to_ldm(unet.state_dict(), vae.state_dict(), encoder.state_dict())
    save_file(state, temporary, metadata={"format": "pt", **(metadata or {})})
    temporary.chmod(0o644)  # safetensors leaves it readable by its owner only
    temporary.replace(path)
    write_config(directory / CONFIG.name, os.path.relpath(TOKENIZER, directory).replace(os.sep, "/"))
    return path
