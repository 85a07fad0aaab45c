"""The constructor arguments of diffusers' and transformers' modules, from the shapes of a checkpoint's weights.

Only the number of attention heads leaves no trace in shapes: it comes from the config beside the checkpoint or, for the
published widths, from the published models (SD 1.x: 8 heads everywhere; SD 2.x and SDXL: 64 channels a head).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from lora_trainer.errors import FileError, UnsupportedModelError
from lora_trainer.families import Traits, traits
from lora_trainer.hosts.standalone.checkpoint_file import CheckpointFile, Shapes
from lora_trainer.hosts.standalone.detect import UNET, Detected
from lora_trainer.hosts.standalone.ldm_config import TextConfig
from lora_trainer.hosts.standalone.ldm_keys import is_diffusers_vae

HEAD_CHANNELS = 64
GROUPS = 32  # of every group normalisation
VAE_LEVELS = 4  # halve the side three times
SIZE_EMBEDDING = 256  # per number of SDXL's six size numbers
START_TOKEN, END_TOKEN, VOCABULARY, CONTEXT = 49406, 49407, 49408, 77


@dataclass(frozen=True)
class TextLayout:
    """One text encoder: how it is built and which of its outputs conditions the UNet."""

    prefix: str  # of its weights in the file
    open_clip: bool  # whether they have open_clip's names
    hidden_size: int
    intermediate_size: int
    layers: int  # that are built; SD 2.x leaves out the last one, as it isn't used
    heads: int
    activation: str
    projection: int  # width of the pooled output; 0 for none
    pad: int  # token that fills up a caption
    output: int  # index into the hidden states; -1 is the last
    final_norm: bool  # whether the output goes through the final layer norm
    clip_skip: bool  # whether clip skip applies


def _numbers(shapes: Shapes, pattern: str) -> list[int]:
    """0, 1, 2, … as long as ``pattern.format(n)`` is a tensor."""
    return list(takewhile(lambda n: pattern.format(n) in shapes, count()))


def _levels(shapes: Shapes) -> Iterator[list[tuple[int, int]]]:
    """For each level of the UNet's way down, its residual blocks as (channels, depth of the transformer after it)."""
    level: list[tuple[int, int]] = []
    for i in count(1):
        block = f"{UNET}input_blocks.{i}."
        if f"{block}0.op.weight" in shapes:
            yield level
            level = []
        elif f"{block}0.in_layers.2.weight" in shapes:
            depth = len(_numbers(shapes, block + "1.transformer_blocks.{}.norm1.weight"))
            level.append((shapes[f"{block}0.in_layers.2.weight"][0], depth))
        else:
            yield level
            return


def unet_arguments(found: Detected) -> dict[str, Any]:
    """Arguments of ``UNet2DConditionModel``.

    Raises:
        UnsupportedModelError: if the blocks aren't laid out as in Stable Diffusion, or the heads are unknown.
    """
    shapes, name = found.file.shapes, found.file.path.name
    levels = list(_levels(shapes))
    if not levels[0] or any(level != [level[0]] * len(levels[0]) for level in levels):
        raise UnsupportedModelError(f"{name} has a UNet whose blocks differ within a level; that isn't supported.")
    channels = [level[0][0] for level in levels]
    if any(width % GROUPS for width in channels):
        raise UnsupportedModelError(
            f"{name} has a UNet of {channels} channels; only multiples of {GROUPS} are possible."
        )
    depths = [level[0][1] for level in levels]
    middle = len(_numbers(shapes, UNET + "middle_block.1.transformer_blocks.{}.norm1.weight"))
    linear = len(shapes[f"{UNET}middle_block.1.proj_in.weight"]) == 2
    arguments: dict[str, Any] = {
        "sample_size": 64,  # of no effect on arithmetic
        "down_block_types": tuple("CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths),
        "up_block_types": tuple("CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(depths)),
        "block_out_channels": tuple(channels),
        "layers_per_block": len(levels[0]),
        "transformer_layers_per_block": (*(depth or 1 for depth in depths[:-1]), middle),  # last: middle block too
        "cross_attention_dim": shapes[f"{UNET}middle_block.1.transformer_blocks.0.attn2.to_k.weight"][1],
        "attention_head_dim": tuple(_heads(found, width, linear) for width in channels),  # diffusers' name for heads
        "use_linear_projection": linear,
    }
    if traits(found.family).sized:
        arguments["addition_embed_type"] = "text_time"
        arguments["addition_time_embed_dim"] = SIZE_EMBEDDING
        arguments["projection_class_embeddings_input_dim"] = shapes[f"{UNET}label_emb.0.0.weight"][1]
    return arguments


def _heads(found: Detected, width: int, linear: bool) -> int:
    config, heads = found.config, 0
    if config.num_head_channels:
        heads = width // config.num_head_channels if width % config.num_head_channels == 0 else 0
    elif config.num_heads:
        heads = config.num_heads if width % config.num_heads == 0 else 0
    elif width % 320 == 0:
        heads = width // HEAD_CHANNELS if linear else 8
    if heads:
        return heads
    if config.path:
        raise UnsupportedModelError(f"{config.path.name} gives attention heads that don't divide {width} channels.")
    raise UnsupportedModelError(
        f"{found.file.path.name} has unusual widths ({width} channels); "
        f"put its config beside it as {found.file.path.with_suffix('.yaml').name}."
    )


def vae_arguments(found: Detected, file: CheckpointFile, prefix: str) -> dict[str, Any]:
    """Arguments of ``AutoencoderKL``, whose weights are in ``file`` (the checkpoint's or another) under ``prefix``.

    Raises:
        UnsupportedModelError: if it isn't a VAE of Stable Diffusion.
    """
    shapes = file.shapes
    theirs = is_diffusers_vae(shapes)
    block = prefix + ("decoder.up_blocks.{}.resnets.{}" if theirs else "decoder.up.{}.block.{}") + ".conv1.weight"
    blocks = list(takewhile(lambda n: block.format(n, 0) in shapes, count()))  # the decoder always has one a level
    channels = [shapes[block.format(n, 0)][0] for n in blocks]
    if theirs:
        channels.reverse()  # they count the decoder's levels from the smallest picture
    latents = (*shapes.get(f"{prefix}post_quant_conv.weight", ()), 0, 0)[1]
    if len(blocks) != VAE_LEVELS or latents != 4:
        raise UnsupportedModelError(
            f"The VAE in {file.path.name} isn't Stable Diffusion's (4 channels, 8 pixels per latent); use another one."
        )
    scale = found.config.scale_factor or traits(found.family).latent_scale
    return {
        "down_block_types": ("DownEncoderBlock2D",) * len(blocks),
        "up_block_types": ("UpDecoderBlock2D",) * len(blocks),
        "block_out_channels": tuple(channels),
        "layers_per_block": len(list(takewhile(lambda n: block.format(0, n) in shapes, count()))) - 1,
        "latent_channels": latents,
        "scaling_factor": scale,
    }


def text_layouts(found: Detected) -> list[TextLayout]:
    """The text encoders in the order in which their outputs are joined."""
    prefixes = traits(found.family).checkpoint_text
    return [_text_layout(found, prefix, found.config.text_config(i)) for i, prefix in enumerate(prefixes)]


def _text_layout(found: Detected, prefix: str, config: TextConfig) -> TextLayout:
    shapes, family = found.file.shapes, traits(found.family)
    open_clip = prefix.endswith("model.")
    names = _open_clip_names(prefix) if open_clip else _clip_names(prefix, shapes)
    try:
        vocabulary, width = shapes[names["tokens"]]
        inner = shapes[names["inner"]][0]
    except KeyError:
        raise UnsupportedModelError(f"{found.file.path.name} has a text encoder of an unknown layout.") from None
    if vocabulary != VOCABULARY:
        raise UnsupportedModelError(
            f"{found.file.path.name} has a text encoder with {vocabulary} tokens; only CLIP's {VOCABULARY} are known."
        )
    layers = len(_numbers(shapes, names["layer"]))
    heads, activation = _described(found, config, open_clip) or (_text_heads(found, width), "")
    output, final_norm = _output(family, config, open_clip, layers)
    if family.skips_last_text_layer and output != -1:  # built without the last layer, whose output isn't used
        layers, output = layers - 1, -1
    return TextLayout(
        prefix, open_clip, width, inner, layers, heads, activation or ("gelu" if open_clip else "quick_gelu"),
        projection=shapes[f"{prefix}text_projection"][1] if family.sized and open_clip else 0,
        pad=0 if open_clip else END_TOKEN, output=output, final_norm=final_norm, clip_skip=family.clip_skip,
    )  # fmt: skip


def _clip_names(prefix: str, shapes: Shapes) -> dict[str, str]:
    inner = "text_model." if f"{prefix}text_model.embeddings.token_embedding.weight" in shapes else ""
    return {
        "tokens": f"{prefix}{inner}embeddings.token_embedding.weight",
        "inner": f"{prefix}{inner}encoder.layers.0.mlp.fc1.weight",
        "layer": prefix + inner + "encoder.layers.{}.mlp.fc1.weight",
    }


def _open_clip_names(prefix: str) -> dict[str, str]:
    return {
        "tokens": f"{prefix}token_embedding.weight",
        "inner": f"{prefix}transformer.resblocks.0.mlp.c_fc.weight",
        "layer": prefix + "transformer.resblocks.{}.mlp.c_fc.weight",
    }


def _output(family: Traits, config: TextConfig, open_clip: bool, layers: int) -> tuple[int, bool]:
    """(hidden state that conditions the UNet, whether the final layer norm is applied to it)."""
    if not family.hidden_text_output:
        return -1, True
    if family.final_norm:
        return (-1 if config.layer == "last" else -2), True
    if not open_clip and config.layer == "hidden" and config.layer_idx is not None:
        return min(config.layer_idx, layers), False
    return layers - 1, False


def _text_heads(found: Detected, width: int) -> int:
    if width % HEAD_CHANNELS == 0:
        return width // HEAD_CHANNELS
    raise UnsupportedModelError(
        f"{found.file.path.name} has a text encoder of unusual width ({width}); name the folder of its config.json as "
        f"version in {found.file.path.with_suffix('.yaml').name}."
    )


def _described(found: Detected, config: TextConfig, open_clip: bool) -> tuple[int, str] | None:
    """(heads, activation) from the files that the config names, if they are here; None if not."""
    folder = find_folder(config.version, found.file.path)
    file = found.file.path.parent / f"{config.arch}.json" if open_clip else folder / "config.json" if folder else None
    if file is None or not file.is_file():
        return None
    try:
        row = json.loads(file.read_text(encoding="utf-8"))
        if open_clip:
            return int(row["text_cfg"]["heads"]), "quick_gelu" if row.get("quick_gelu") else "gelu"
        row = row.get("text_config", row)
        return int(row["num_attention_heads"]), str(row.get("hidden_act", "quick_gelu"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileError(f"{file} doesn't describe a text encoder; correct it or move it away.") from error


def find_folder(version: str, checkpoint: Path) -> Path | None:
    """The folder that a config calls ``version``: as it is, or its last part beside the checkpoint or one folder up."""
    if not version:
        return None
    places = [Path(version), checkpoint.parent / version]
    places += [folder / Path(version).name for folder in (checkpoint.parent, checkpoint.parent.parent)]
    return next((place for place in places if (place / "config.json").is_file()), None)
