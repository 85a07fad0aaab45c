"""Names: module paths of the two UNet namings, kohya's keys, and kohya's numbers of the UNet's blocks.

A UNet is named the diffusers way (``down_blocks.0.attentions.1.proj_in``) or the ldm/sgm way
(``input_blocks.2.1.proj_in``). Both are parsed into a :class:`Place` and written from it, so each direction is the
inverse of the other. The file's keys use diffusers names for SD 1 and 2 and sgm names for SDXL, whatever the host's
naming is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from lora_trainer.families import Family, traits
from lora_trainer.hosts.base import Naming

Side = Literal["down", "mid", "up"]
Kind = Literal["attention", "resnet", "sampler", "outer"]

_ATTENTION = (
    r"norm|proj_in|proj_out|transformer_blocks\.\d+\.(?:norm[123]|attn[12]\.to_(?:q|k|v|out\.0)|ff\.net\.(?:0\.proj|2))"
)
_RESNET_TO_LDM = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
    "norm1": "in_layers.0",
    "norm2": "out_layers.0",
}
_OUTER_TO_LDM = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
}
_OUTER_TO_DIFFUSERS = {ldm: diffusers for diffusers, ldm in _OUTER_TO_LDM.items()}
_RESNET_TO_DIFFUSERS = {ldm: diffusers for diffusers, ldm in _RESNET_TO_LDM.items()}
_IS_ATTENTION = re.compile(_ATTENTION)
_DIFFUSERS = re.compile(r"(down|up)_blocks\.(\d+)\.(attentions|resnets|downsamplers|upsamplers)\.(\d+)\.(.+)")
_DIFFUSERS_MID = re.compile(r"mid_block\.(attentions|resnets)\.(\d+)\.(.+)")
_LDM = re.compile(r"(input|output)_blocks\.(\d+)\.(\d+)\.(.+)")
_LDM_MID = re.compile(r"middle_block\.(\d+)\.(.+)")
_KINDS: dict[str, Kind] = {
    "attentions": "attention", "resnets": "resnet", "downsamplers": "sampler", "upsamplers": "sampler",
}  # fmt: skip
_LDM_SPREAD = {"down": 1, "up": 0}  # input_blocks.0 is the first convolution


@dataclass(frozen=True)
class Shape:
    """What the translation of names needs to know of a UNet beside the name.

    ``layers`` is the number of residual blocks of a down block (2 in every released model); an up block has one more.
    ``attention_ups`` are the up blocks with attention: there the upsampler is the third part of its ldm block.
    """

    layers: int = 2
    attention_ups: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Place:
    """Where a weight sits in the UNet. ``leaf`` is the rest of the diffusers path, such as ``conv1``; what is ``outer``
    is in no block, and its leaf is the whole path."""

    side: Side
    block: int  # 0 for the middle
    kind: Kind
    index: int  # within the block
    leaf: str


def parse(path: str, naming: Naming, shape: Shape) -> Place | None:
    """The place of a module path that a LoRA can adapt; None for every other path."""
    outer = path if naming == "diffusers" else _OUTER_TO_DIFFUSERS.get(path)
    if outer in _OUTER_TO_LDM:
        return Place("mid", 0, "outer", 0, outer)
    place = _parse_diffusers(path) if naming == "diffusers" else _parse_ldm(path, shape)
    if place is None:
        return None
    if place.kind == "attention":
        known = _IS_ATTENTION.fullmatch(place.leaf) is not None
    elif place.kind == "resnet":
        known = place.leaf in _RESNET_TO_LDM
    else:
        known = place.leaf == "conv"
    return place if known else None


def diffusers_path(place: Place) -> str:
    """The place's path in a UNet named the diffusers way."""
    if place.kind == "outer":
        return place.leaf
    parts = {"attention": "attentions", "resnet": "resnets", "sampler": f"{place.side}samplers"}[place.kind]
    root = "mid_block" if place.side == "mid" else f"{place.side}_blocks.{place.block}"
    return f"{root}.{parts}.{place.index}.{place.leaf}"


def ldm_path(place: Place, shape: Shape) -> str:
    """The place's path in a UNet named the ldm/sgm way."""
    if place.kind == "outer":
        return _OUTER_TO_LDM[place.leaf]
    leaf = _RESNET_TO_LDM[place.leaf] if place.kind == "resnet" else place.leaf
    if place.side == "mid":  # residual, attention, residual
        return f"middle_block.{1 if place.kind == 'attention' else 2 * place.index}.{leaf}"
    root = f"{'input' if place.side == 'down' else 'output'}_blocks.{ldm_block(place, shape)}"
    if place.kind != "sampler":
        return f"{root}.{1 if place.kind == 'attention' else 0}.{leaf}"
    if place.side == "down":
        return f"{root}.0.op"
    return f"{root}.{2 if place.block in shape.attention_ups else 1}.conv"


def ldm_block(place: Place, shape: Shape) -> int:
    """Number of the place's block within input_blocks, middle_block or output_blocks."""
    if place.side == "mid":
        return 1 if place.kind == "attention" else 2 * place.index
    within = shape.layers if place.kind == "sampler" else place.index
    return _LDM_SPREAD[place.side] + (shape.layers + 1) * place.block + within


def kohya_unet_key(place: Place, family: Family, shape: Shape) -> str:
    """The key of the place's LoRA in a file of kohya's format."""
    as_ldm = traits(family).ldm_keys or not _webui_finds(place, shape)
    return _join("lora_unet", ldm_path(place, shape) if as_ldm else diffusers_path(place))


def _webui_finds(place: Place, shape: Shape) -> bool:
    """Whether AUTOMATIC1111 finds the place by its diffusers name.

    It knows one layout, that of the released SD 1.x and SD 2.x: no attention in the first up block, and in all others.
    In other UNets, such as the embedded one, it looks for upsamplers in the wrong place; by ldm names it finds them.
    """
    if place.kind != "sampler" or place.side != "up":
        return True
    return (place.block in shape.attention_ups) == (place.block > 0)


def unet_key_spellings(place: Place, shape: Shape) -> tuple[str, str]:
    """Both spellings of the key that occur in files: diffusers and sgm names."""
    return _join("lora_unet", diffusers_path(place)), _join("lora_unet", ldm_path(place, shape))


def kohya_text_key(prefix: str, layer: int, leaf: str) -> str:
    """The key of a text encoder's LoRA; ``leaf`` in transformers' names, such as ``self_attn.q_proj``."""
    return _join(prefix, f"text_model.encoder.layers.{layer}.{leaf}")


def block_index(place: Place, family: Family, shape: Shape) -> int | None:
    """kohya's number of the place's block: 0-24 for SD 1 and 2, 0-22 for SDXL; None for what is in no block."""
    if place.kind == "outer":
        return None
    if traits(family).end_blocks:
        return {"down": 1, "mid": 10, "up": 13}[place.side] + ldm_block(place, shape)
    if place.side == "mid":
        return 12
    return {"down": 1, "up": 13}[place.side] + 3 * place.block + (2 if place.kind == "sampler" else place.index)


def shape_of(paths: Iterable[str], naming: Naming) -> Shape:
    """Read the UNet's shape off its module paths."""
    paths = list(paths)
    if naming == "diffusers":
        first = {int(match[1]) for path in paths if (match := re.match(r"down_blocks\.0\.resnets\.(\d+)", path))}
        ups = {int(match[1]) for path in paths if (match := re.match(r"up_blocks\.(\d+)\.attentions\.", path))}
        return Shape(len(first) or 2, frozenset(ups))
    samplers = [int(match[1]) for path in paths if (match := re.match(r"input_blocks\.(\d+)\.0\.op$", path))]
    layers = min(samplers) - 1 if samplers else 2
    blocks = [int(match[1]) for path in paths if (match := re.match(r"output_blocks\.(\d+)\.1\.proj_in$", path))]
    return Shape(layers, frozenset(block // (layers + 1) for block in blocks))


def _parse_diffusers(path: str) -> Place | None:
    if match := _DIFFUSERS.fullmatch(path):
        side: Side = "down" if match[1] == "down" else "up"
        if match[3].endswith("samplers") and not match[3].startswith(side):
            return None
        return Place(side, int(match[2]), _KINDS[match[3]], int(match[4]), match[5])
    if match := _DIFFUSERS_MID.fullmatch(path):
        return Place("mid", 0, _KINDS[match[1]], int(match[2]), match[3])
    return None


def _parse_ldm(path: str, shape: Shape) -> Place | None:
    if match := _LDM_MID.fullmatch(path):
        part, leaf = int(match[1]), match[2]
        if part == 1:
            return Place("mid", 0, "attention", 0, leaf)
        return Place("mid", 0, "resnet", part // 2, _RESNET_TO_DIFFUSERS.get(leaf, ""))
    match = _LDM.fullmatch(path)
    if match is None:
        return None
    side: Side = "down" if match[1] == "input" else "up"
    number, part, leaf = int(match[2]) - _LDM_SPREAD[side], int(match[3]), match[4]
    if number < 0:
        return None
    block, index = divmod(number, shape.layers + 1)
    if leaf == ("op" if side == "down" else "conv"):
        return Place(side, block, "sampler", 0, "conv") if index == shape.layers else None
    if part == 0:
        return Place(side, block, "resnet", index, _RESNET_TO_DIFFUSERS.get(leaf, ""))
    return Place(side, block, "attention", index, leaf) if part == 1 else None


def _join(prefix: str, path: str) -> str:
    return f"{prefix}_{path.replace('.', '_')}"
