"""A LoRA from two checkpoints: what one has learned beside the other, as far as a rank can hold it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from lora_trainer.errors import ConfigError, FileError
from lora_trainer.families import traits
from lora_trainer.hosts.standalone.detect import UNET, Detected, detect
from lora_trainer.hosts.standalone.ldm_keys import clip_state, open_clip_state
from lora_trainer.lora_tools.files import Made, Modules, check_free, of_network, tensors_of, write
from lora_trainer.lora_tools.ranks import Wanted, in_all, truncate
from lora_trainer.network import keys
from lora_trainer.network.lora import LoraWeights

CLAMP, LEAST = 0.99, 0.01  # sd-scripts' clamp_quantile and min_diff
_TEXT = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")


def extract(
    base: Path,
    tuned: Path,
    wanted: Wanted,
    output: Path,
    precision: str = "fp16",
    overwrite: bool = False,
    clamp_quantile: float = CLAMP,
    min_diff: float = LEAST,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Made:
    """The LoRA that makes ``base`` nearly ``tuned``. Weights are read one by one; no model is built.

    Args:
        wanted: ``conv_rank`` 0 leaves the residual blocks out, as in a plain LoRA.
        clamp_quantile: the largest values of the factors are clamped there, as sd-scripts does; 1 for not.
        min_diff: a text encoder is left out if no weight of it differs by more.
        tell: is called with the modules that are done, and all.

    Raises:
        ConfigError: if the checkpoints are of different families or don't differ, or the result exists.
        FileError: if one can't be read.
    """
    check_free(output, overwrite)
    first, second = detect(base), detect(tuned)
    if first.family != second.family:
        raise ConfigError(
            f"{base.name} is {traits(first.family).label} and {tuned.name} {traits(second.family).label}; give two "
            "checkpoints of one family."
        )
    ours, theirs = _weights(first, wanted.conv_rank > 0), _weights(second, wanted.conv_rank > 0)
    lines = _leave_out_text(ours, theirs, min_diff)
    modules: Modules = {}
    kept = []
    for done, key in enumerate(ours):
        tell(done, len(ours))
        before, after = ours[key](), theirs[key]() if key in theirs else None
        if after is None or after.shape != before.shape:
            raise FileError(f"{tuned.name} has no weight for {key} of the shape {tuple(before.shape)}.")
        change = after.float() - before.float()
        if not bool(change.any()):
            continue
        made = truncate(change.flatten(1), None, tuple(change.shape), 1.0, wanted)
        modules[key] = _clamped(made.weights, clamp_quantile)
        kept.append(made.kept)
    if not modules:
        raise ConfigError(f"{tuned.name} doesn't differ from {base.name} in anything that a LoRA can hold.")
    said = {"ss_sd_model_name": base.name, "ss_base_model_version": traits(first.family).base_version}
    said |= {"ss_v2": str(not traits(first.family).clip_skip and not traits(first.family).sized)}
    comment = {"ss_training_comment": f"extracted from {tuned.name} beside {base.name}"}
    write(output, tensors_of(modules), {**said, **of_network(modules), **comment}, precision)
    lines.append(in_all(kept))
    return Made(output, len(modules), lines)


Weights = dict[str, Callable[[], Tensor]]


def _weights(found: Detected, convolutions: bool) -> Weights:
    """The weights that a LoRA adapts by kohya's keys, each read when it is called."""
    names = [name.removeprefix(UNET) for name in found.file.shapes if name.startswith(UNET)]
    paths = [name.removesuffix(".weight") for name in names if name.endswith(".weight")]
    shape = keys.shape_of(paths, "ldm")
    weights: Weights = {}
    for path in paths:
        place = keys.parse(path, "ldm", shape)
        if place is None or place.kind == "outer" or place.leaf.rpartition(".")[2].startswith("norm"):
            continue
        if place.kind == "attention" or convolutions:
            name = f"{UNET}{path}.weight"
            weights[keys.kohya_unet_key(place, found.family, shape)] = partial(_read, found, name)
    family = traits(found.family)
    for prefix, lora in zip(family.checkpoint_text, family.lora_text, strict=True):
        weights.update(_text(found, prefix, lora))
    return weights


def _text(found: Detected, prefix: str, lora: str) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    tensors = found.file.read(prefix)
    open_clip = any("resblocks" in name for name in tensors)
    state = open_clip_state(tensors, prefix, 99, projection=False) if open_clip else clip_state(tensors, prefix)
    layers = 1 + max((int(name.split(".")[3]) for name in state if ".layers." in name), default=-1)
    if traits(found.family).skips_last_text_layer and open_clip:
        layers -= 1
    for layer in range(layers):
        for leaf in _TEXT:
            name = f"text_model.encoder.layers.{layer}.{leaf}.weight"
            yield keys.kohya_text_key(lora, layer, leaf), partial(state.__getitem__, name)


def _read(found: Detected, name: str) -> Tensor:
    return found.file.read(name)[name]


def _leave_out_text(ours: Weights, theirs: Weights, least: float) -> list[str]:
    """Take out the text encoders if they are the same, as sd-scripts judges it; a line on it."""
    text = [key for key in ours if not key.startswith("lora_unet")]
    shared = [key for key in text if key in theirs and theirs[key]().shape == ours[key]().shape]
    if any(float((theirs[key]().float() - ours[key]().float()).abs().max()) > least for key in shared):
        return []
    for key in text:
        del ours[key]
    return [f"The text encoders differ by no more than {least:g}, so they are left out."]


def _clamped(weights: LoraWeights, quantile: float) -> LoraWeights:
    if quantile >= 1:
        return weights
    values = torch.cat([weights.up.flatten(), weights.down.flatten()])
    place = quantile * (len(values) - 1)
    low, high = (float(values.kthvalue(int(n) + 1).values) for n in (math.floor(place), math.ceil(place)))
    limit = low + (high - low) * (place - math.floor(place))  # as torch.quantile, which takes no more than 16 million
    return LoraWeights(weights.down.clamp(-limit, limit), weights.up.clamp(-limit, limit), weights.alpha)
