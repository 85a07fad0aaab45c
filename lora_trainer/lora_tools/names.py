"""The names of a LoRA's modules in the formats that there are: kohya's keys, and diffusers' module paths."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache

from lora_trainer.families import Family, traits
from lora_trainer.network import keys
from lora_trainer.network.keys import Place, Shape

_ATTENTION = ("norm", "proj_in", "proj_out")
_BLOCK = (
    *(f"attn{i}.to_{leaf}" for i in (1, 2) for leaf in ("q", "k", "v", "out.0")), "ff.net.0.proj", "ff.net.2",
    "norm1", "norm2", "norm3",
)  # fmt: skip
_RESNET = ("conv1", "conv2", "time_emb_proj", "conv_shortcut", "norm1", "norm2")
_OUTER = ("conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2")
_TEXT = (*(f"self_attn.{slot}_proj" for slot in ("q", "k", "v", "out")), "mlp.fc1", "mlp.fc2")
_LARGE = ("_conv1", "_conv2", "_in_layers_2", "_out_layers_3", "_0_op", "_conv", "_conv_in", "_conv_out")  # 3x3
_TEXT_ROOTS = {"lora_te": "text_encoder", "lora_te1": "text_encoder", "lora_te2": "text_encoder_2"}
_DEEPEST, _TEXT_LAYERS = 10, 32


def shape_of(family: Family | None) -> Shape:
    """The layout of the released UNets."""
    if family is not None and traits(family).ldm_keys:
        return Shape(2, frozenset({0, 1}))
    return Shape(2, frozenset({1, 2, 3}))


def canonical(key: str, family: Family | None) -> str:
    """A module's key as kohya's files of the family have it; as it is where that isn't known."""
    if family is None:
        return key
    place = _unet(family).get(key)
    if place is not None:
        return keys.kohya_unet_key(place, family, shape_of(family))
    first, prefix = traits(family).lora_text[0], key.partition("_text_model_")[0]
    return key.replace(prefix, first, 1) if prefix in ("lora_te", "lora_te1") else key


def diffusers_path(key: str, family: Family) -> str | None:
    """A module's path with its root, such as ``unet.mid_block…``; None for keys that have none."""
    place = _unet(family).get(key)
    if place is not None:
        return f"unet.{keys.diffusers_path(place)}"
    return _text().get(key)


def weight_shape(key: str, change: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the weight that a change is for; files of some types have its kernel flattened."""
    if len(change) == 2 and key.endswith(_LARGE) and change[1] % 9 == 0:
        return (change[0], change[1] // 9, 3, 3)
    return change


@cache
def _unet(family: Family) -> dict[str, Place]:
    """Every key that a UNet's module may have -> its place."""
    shape = shape_of(family)
    return {spelling: place for place in _places() for spelling in keys.unet_key_spellings(place, shape)}


@cache
def _text() -> dict[str, str]:
    return {
        keys.kohya_text_key(prefix, layer, leaf): f"{root}.text_model.encoder.layers.{layer}.{leaf}"
        for prefix, root in _TEXT_ROOTS.items()
        for layer in range(_TEXT_LAYERS)
        for leaf in _TEXT
    }


def _places() -> Iterator[Place]:
    sides: list[tuple[keys.Side, range, range]] = [
        ("down", range(4), range(2)), ("mid", range(1), range(2)), ("up", range(4), range(3)),
    ]  # fmt: skip
    blocks = [f"transformer_blocks.{depth}.{leaf}" for depth in range(_DEEPEST) for leaf in _BLOCK]
    for side, numbers, indices in sides:
        for block, index in itertools.product(numbers, indices):
            yield from (Place(side, block, "resnet", index, leaf) for leaf in _RESNET)
            if side != "mid" or index == 0:
                yield from (Place(side, block, "attention", index, leaf) for leaf in (*_ATTENTION, *blocks))
        if side != "mid":
            yield from (Place(side, block, "sampler", 0, "conv") for block in numbers)
    yield from (Place("mid", 0, "outer", 0, leaf) for leaf in _OUTER)
