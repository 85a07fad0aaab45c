"""Which weights of a model get a LoRA: found by path and weight shape, never by class.

On some hosts a linear layer is no ``nn.Linear`` (patched, quantised or cast classes), but its path and the number of
dimensions of its weight are always the same. kohya's rules: the transformer blocks' linears and 1x1 convolutions, the
text encoders' attention and MLP, and on request the residual blocks with their 3x3 convolutions. LyCORIS also trains
the UNet's ends, its time embedding and norm layers; every target has a role by which they are told apart.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from torch import Tensor, nn

from lora_trainer.errors import UnsupportedModelError
from lora_trainer.families import Family, traits
from lora_trainer.hosts.base import ModelInfo, TextEncoder
from lora_trainer.network import keys

Slot = Literal["", "q", "k", "v", "out"]
Role = Literal[
    "attention", "transformer", "residual", "ends", "time", "transformer norm", "residual norm",
    "text attention", "text mlp",
]  # fmt: skip
TRANSFORMERS: frozenset[Role] = frozenset({"attention", "transformer"})
WITH_RESIDUALS: frozenset[Role] = TRANSFORMERS | {"residual"}
EVERYTHING: frozenset[Role] = frozenset(get_args(Role))

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
    the weight's, [out, in], [out, in, kh, kw] or a norm layer's [channels]; ``conv_in_file`` says that the file has it
    as a convolution even if the host has a linear (SD 2). ``spellings`` are all keys under which files carry this LoRA.
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
    role: Role = "attention"

    @property
    def is_norm(self) -> bool:
        """Whether it is a norm layer: its weight has one dimension."""
        return len(self.shape) == 1

    @property
    def large_kernel(self) -> bool:
        """Whether it is a convolution larger than 1x1: those get ``conv_dim``."""
        return len(self.shape) == 4 and self.shape[2:] != (1, 1)


def unet_targets(unet: nn.Module, info: ModelInfo, roles: Collection[Role]) -> list[Target]:
    """The UNet's targets of these roles in the order of its modules.

    Raises:
        UnsupportedModelError: if nothing in the UNet has the expected names, or a weight has a strange shape.
    """
    modules = dict(unet.named_modules())
    shape = keys.shape_of(modules, info.naming)
    found = []
    for path, module in modules.items():
        place = keys.parse(path, info.naming, shape)
        if place is None or _role(place) not in roles:
            continue
        if not module.state_dict():  # ldm has an identity where a shortcut isn't needed
            continue
        projection = place.kind == "attention" and place.leaf in ("proj_in", "proj_out")
        norm = _role(place).endswith("norm")
        key = keys.kohya_unet_key(place, info.family, shape)
        found.append(
            Target(
                key, path, module, _weight_shape(module, path, (1,) if norm else (2, 4)), "unet",
                block=keys.block_index(place, info.family, shape),
                conv_in_file=projection and not traits(info.family).linear_projections,
                spellings=tuple(dict.fromkeys((key, *keys.unet_key_spellings(place, shape)))), role=_role(place),
            )
        )  # fmt: skip
    if not found and WITH_RESIDUALS & set(roles):
        names = {"diffusers": "down_blocks.…", "ldm": "input_blocks.…"}[info.naming]
        raise UnsupportedModelError(
            f"The UNet of {info.checkpoint} has no transformer blocks named {names}; "
            "only SD 1, SD 2 and SDXL models can be trained."
        )
    return found


def _role(place: keys.Place) -> Role:
    if place.kind == "outer":
        return "ends" if place.leaf.startswith("conv") else "time"
    if place.kind != "attention":
        return "residual norm" if place.leaf.startswith("norm") else "residual"
    if ".attn" in place.leaf:
        return "attention"
    return "transformer norm" if place.leaf.rpartition(".")[2].startswith("norm") else "transformer"


def base_weight(target: Target) -> Tensor:
    """The frozen weight that a target stands for; open_clip keeps three of them in one."""
    module: Any = target.module
    if not target.slot:
        weight: Tensor = module.weight
        return weight
    if target.slot == "out":
        out: Tensor = module.out_proj.weight
        return out
    part: Tensor = module.in_proj_weight.chunk(3)["qkv".index(target.slot)]
    return part


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
    role: Role = "text mlp" if leaf.startswith("mlp") else "text attention"
    return Target(key, path, module, shape, "text_encoder", slot, spellings=spellings, role=role)


def _weight_shape(module: nn.Module, path: str, dimensions: tuple[int, ...] = (2, 4)) -> tuple[int, ...]:
    weight = getattr(module, "weight", None)
    if weight is None or weight.dim() not in dimensions:
        raise UnsupportedModelError(
            f"{path} has no 2-D or 4-D weight; quantised models can't be trained, so load an unquantised checkpoint."
        )
    return tuple(int(size) for size in weight.shape)
