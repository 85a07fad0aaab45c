"""Which weights of a model get a LoRA: found by path and weight shape, never by class.

On some hosts a linear layer is no ``nn.Linear`` (patched, quantised or cast classes), but its path and the number of
dimensions of its weight are always the same. kohya's rules: the transformer blocks' linears and 1x1 convolutions, the
text encoders' attention and MLP, and on request the residual blocks with their 3x3 convolutions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import nn

from lora_trainer.errors import UnsupportedModelError
from lora_trainer.families import Family, traits
from lora_trainer.hosts.base import ModelInfo, TextEncoder
from lora_trainer.network import keys

Slot = Literal["", "q", "k", "v", "out"]

_TRANSFORMERS = re.compile(r"(?:.*\.)?encoder\.layers\.(\d+)\.(self_attn\.(?:q|k|v|out)_proj|mlp\.fc[12])")
_OPEN_CLIP = re.compile(r"(?:.*\.)?transformer\.resblocks\.(\d+)\.(attn|mlp\.c_fc|mlp\.c_proj)")
_OPEN_CLIP_MLP = {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
_NOT_TEXT = re.compile(r"(?:^|\.)(?:visual|vision_model)\.")
_SLOTS: tuple[Slot, ...] = ("q", "k", "v", "out")
_SD2_LAYERS = 23  # of 24: SD 2 was trained on the output of the last but one


@dataclass(frozen=True)
class Target:
    """One weight that can get a LoRA.

    ``module`` owns the weight. ``slot`` is set for open_clip's attention, whose module holds four weights. ``shape`` is
    the weight's, [out, in] or [out, in, kh, kw]; ``conv_in_file`` says that the file has it as a convolution even if
    the host has a linear (SD 2). ``spellings`` are all keys under which files carry this LoRA.
    """

    key: str
    path: str
    module: nn.Module
    shape: tuple[int, ...]
    part: Literal["unet", "text_encoder"]
    slot: Slot = ""
    block: int | None = None  # kohya's number, UNet only
    conv_in_file: bool = False
    tokens_first: bool = False  # its input is [tokens, images, width]
    spellings: tuple[str, ...] = ()

    @property
    def large_kernel(self) -> bool:
        """Whether it is a convolution larger than 1x1: those get ``conv_dim``."""
        return len(self.shape) == 4 and self.shape[2:] != (1, 1)


def unet_targets(unet: nn.Module, info: ModelInfo, convolutions: bool) -> list[Target]:
    """The UNet's targets in the order of its modules; with ``convolutions`` also those of the residual blocks.

    Raises:
        UnsupportedModelError: if nothing in the UNet has the expected names, or a weight has a strange shape.
    """
    modules = dict(unet.named_modules())
    shape = keys.shape_of(modules, info.naming)
    found = []
    for path, module in modules.items():
        place = keys.parse(path, info.naming, shape)
        if place is None or (place.kind != "attention" and not convolutions):
            continue
        if not module.state_dict():  # ldm has an identity where a shortcut isn't needed
            continue
        projection = place.kind == "attention" and place.leaf in ("proj_in", "proj_out")
        key = keys.kohya_unet_key(place, info.family, shape)
        found.append(
            Target(
                key, path, module, _weight_shape(module, path), "unet",
                block=keys.block_index(place, info.family, shape),
                conv_in_file=projection and not traits(info.family).linear_projections,
                spellings=tuple(dict.fromkeys((key, *keys.unet_key_spellings(place, shape)))),
            )
        )  # fmt: skip
    if not found:
        names = {"diffusers": "down_blocks.…", "ldm": "input_blocks.…"}[info.naming]
        raise UnsupportedModelError(
            f"The UNet of {info.checkpoint} has no transformer blocks named {names}; "
            "only SD 1, SD 2 and SDXL models can be trained."
        )
    return found


def text_targets(encoders: Sequence[TextEncoder], info: ModelInfo) -> list[Target]:
    """The text encoders' targets, encoder by encoder.

    Raises:
        UnsupportedModelError: if an encoder has none of the expected names.
    """
    found: list[Target] = []
    for encoder in encoders:
        own = list(_encoder_targets(encoder, info.family))
        if not own:
            raise UnsupportedModelError(
                f"The text encoder {encoder.prefix} of {info.checkpoint} has no layers named in the {encoder.naming} "
                "style; switch network_train_unet_only on to leave it out."
            )
        found += own
    return found


def _encoder_targets(encoder: TextEncoder, family: Family) -> list[Target]:
    pattern = _TRANSFORMERS if encoder.naming == "transformers" else _OPEN_CLIP
    rows, modules = [], dict(encoder.module.named_modules())
    for path, module in modules.items():
        match = pattern.fullmatch(path)
        if match and not _NOT_TEXT.search(path):
            rows.append((int(match[1]), match[2], path, module))
    layers = max((row[0] for row in rows), default=-1) + 1
    used = _used_layers(layers, encoder, family)
    found: list[Target] = []
    for layer, leaf, path, module in rows:
        if layer >= used:
            continue
        if leaf == "attn":
            found += _attention_targets(encoder.prefix, layer, path, module)
        else:
            target = _text_target(
                encoder.prefix, layer, _OPEN_CLIP_MLP.get(leaf, leaf), path, module, _weight_shape(module, path)
            )
            attention = modules.get(path.removesuffix(leaf) + "attn")  # open_clip's block has one layout for all
            found.append(replace(target, tokens_first=not getattr(attention, "batch_first", True)))
    return found


def _used_layers(layers: int, encoder: TextEncoder, family: Family) -> int:
    """SD 2 ends at the penultimate layer: open_clip towers have the unused last one, converted ones mostly don't."""
    if not traits(family).skips_last_text_layer:
        return layers
    return layers - 1 if encoder.naming == "open_clip" else min(layers, _SD2_LAYERS)


def _attention_targets(prefix: str, layer: int, path: str, module: nn.Module) -> list[Target]:
    """The q, k, v and output projections of an ``nn.MultiheadAttention``, whose first three share one weight."""
    packed = getattr(module, "in_proj_weight", None)
    if packed is None or packed.dim() != 2 or packed.shape[0] != 3 * packed.shape[1]:
        raise UnsupportedModelError(
            f"{path} has no packed in_proj_weight of shape [3·width, width]; this text encoder can't be trained."
        )
    width = int(packed.shape[1])
    return [
        _text_target(prefix, layer, f"self_attn.{slot}_proj", path, module, (width, width), slot) for slot in _SLOTS
    ]


def _text_target(
    prefix: str, layer: int, leaf: str, path: str, module: nn.Module, shape: tuple[int, ...], slot: Slot = ""
) -> Target:
    key = keys.kohya_text_key(prefix, layer, leaf)
    others = {"lora_te": "lora_te1", "lora_te1": "lora_te"}  # files of SD 1 and 2 with te1, and the reverse
    spellings = (key, keys.kohya_text_key(others[prefix], layer, leaf)) if prefix in others else (key,)
    return Target(key, path, module, shape, "text_encoder", slot, spellings=spellings)


def _weight_shape(module: nn.Module, path: str) -> tuple[int, ...]:
    weight = getattr(module, "weight", None)
    if weight is None or weight.dim() not in (2, 4):
        raise UnsupportedModelError(
            f"{path} has no 2-D or 4-D weight; quantised models can't be trained, so load an unquantised checkpoint."
        )
    return tuple(int(size) for size in weight.shape)
