"""Several LoRAs as one, each with its strength, and a LoRA at another strength or of another rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from lora_trainer.errors import ConfigError, FileError
from lora_trainer.lora_tools.files import Made, Modules, check_free, of_network, one_family, read, tensors_of, write
from lora_trainer.lora_tools.names import weight_shape
from lora_trainer.lora_tools.ranks import Wanted, in_all, truncate
from lora_trainer.lora_tools.words import joined, kept
from lora_trainer.network.adapter import FileWeights
from lora_trainer.network.file import LoraFile
from lora_trainer.network.lora import LoraWeights


def merge(
    paths: Sequence[Path],
    ratios: Sequence[float],
    output: Path,
    wanted: Wanted | None = None,
    precision: str = "fp16",
    overwrite: bool = False,
) -> Made:
    """The sum of LoRAs at these strengths, exactly: ranks are put side by side; with ``wanted`` reduced afterwards.

    Raises:
        ConfigError: if the numbers don't suit the files, or the result exists.
        FileError: if a file can't be read, or is of a type that can't be added.
    """
    check_free(output, overwrite)
    if len(paths) < 2 or len(ratios) != len(paths):
        raise ConfigError(f"There are {len(paths)} LoRAs and {len(ratios)} ratios; give two or more, and one for each.")
    if not all(math.isfinite(ratio) for ratio in ratios):
        raise ConfigError("Every ratio must be a number.")
    files = [read(path) for path in paths]
    one_family(files)
    words = joined(files)
    modules: Modules = {}
    shares = []
    for key in dict.fromkeys(key for file in files for key in file.modules):
        parts = [(file, file.modules[key], r) for file, r in zip(files, ratios, strict=True) if key in file.modules]
        modules[key], share = _sum(key, parts, wanted)
        shares.append(share)
    said = " + ".join(f"{ratio:g} · {path.stem}" for ratio, path in zip(ratios, paths, strict=True))
    metadata = _common(files) | of_network(modules) | {"modelspec.merged_from": said, "ss_training_comment": said}
    write(output, tensors_of(modules), metadata, precision, words)
    lines = [f"{output.name} is {said}."]
    if wanted is not None:
        lines.append(in_all(shares))
    lines += dict.fromkeys(line for file in files for line in kept(file))
    return Made(output, len(modules), lines)


def _sum(
    key: str, parts: Sequence[tuple[LoraFile, FileWeights, float]], wanted: Wanted | None
) -> tuple[LoraWeights, float]:
    """The sum of one module's changes, and the share of it that is kept."""
    plain = [(weights, ratio) for _, weights, ratio in parts if isinstance(weights, LoraWeights)]
    shapes = set()
    for file, weights, _ in parts:
        change = weights.change() if not isinstance(weights, LoraWeights) else None
        if change is None and not isinstance(weights, LoraWeights):
            raise FileError(f"{file.path} can't be merged: {key} is of type {weights.label}, which can't be added.")
        shapes.add(_outline(weights))
    if len(shapes) > 1:
        raise FileError(f"The LoRAs can't be merged: {key} is of different widths; give LoRAs of one model family.")
    if len(plain) < len(parts):
        if wanted is None:
            other = next(weights for _, weights, _ in parts if not isinstance(weights, LoraWeights))
            raise ConfigError(f"{key} is a {other.label}: a sum of other types than LoRA needs a rank; give --rank.")
        whole = [(weights.change(), ratio) for _, weights, ratio in parts]
        shape = next(weight_shape(key, tuple(change.shape)) for change, _ in whole if change is not None)
        total = sum(change.double().flatten(1) * ratio for change, ratio in whole if change is not None)
        assert isinstance(total, torch.Tensor)
        return truncate(total, None, shape, 1.0, wanted)
    up = torch.cat([w.up.flatten(1) * (ratio * w.alpha / w.rank) for w, ratio in plain], 1)
    down = torch.cat([w.down.flatten(1) for w, _ in plain])
    first = plain[0][0]
    shape = (first.up.shape[0], *first.down.shape[1:])
    if wanted is not None:
        return truncate(up, down, shape, 1.0, wanted)
    ones = (1,) * (len(shape) - 2)
    return LoraWeights(down.view(-1, *shape[1:]), up.view(-1, up.shape[1], *ones), float(up.shape[1])), 1.0


def _outline(weights: FileWeights) -> tuple[int, int]:
    if isinstance(weights, LoraWeights):
        return int(weights.up.shape[0]), math.prod(weights.down.shape[1:])
    change = weights.change()
    return (0, 0) if change is None else (int(change.shape[0]), math.prod(change.shape[1:]))


def _common(files: Sequence[LoraFile]) -> dict[str, str]:
    """What the metadata of all files agree on of the base model, and nothing of a training."""
    wanted = ("ss_base_model_version", "ss_v2", "ss_sd_model_name", "modelspec.architecture", "ss_clip_skip",
              "modelspec.implementation", "modelspec.sai_model_spec", "modelspec.prediction_type")  # fmt: skip
    values = {name: {file.metadata.get(name) for file in files} for name in wanted}
    return {name: text for name, found in values.items() if len(found) == 1 and (text := next(iter(found)))}


def bake(path: Path, strength: float, output: Path, precision: str = "fp16", overwrite: bool = False) -> Made:
    """The LoRA whose strength 1 is this one's ``strength``.

    Raises:
        ConfigError: if the strength is no number or 0, or the result exists.
        FileError: if the file can't be read, or is of a type whose strength isn't a factor: DoRA, OFT.
    """
    check_free(output, overwrite)
    if not math.isfinite(strength) or strength == 0:
        raise ConfigError(f"The strength can't be {strength:g}; give a number other than 0.")
    file = read(path)
    modules: Modules = {}
    for key, weights in file.modules.items():
        scaled = weights.times(strength)
        if scaled is None:
            raise FileError(
                f"{path} is of type {weights.label} ({key}): its strength can't be put into the file; use it in the "
                "prompt."
            )
        modules[key] = scaled
    comment = f"{path.stem} at strength {strength:g}"
    write(output, tensors_of(modules), {**file.metadata, "ss_training_comment": comment}, precision, file.words)
    return Made(output, len(modules), [f"{output.name} at strength 1 is {comment}.", *kept(file)])


def resize(path: Path, wanted: Wanted, output: Path, precision: str = "fp16", overwrite: bool = False) -> Made:
    """The LoRA with fewer ranks, as close to it as they allow; LoHa, LoKr and Tucker cores become plain LoRAs.

    Raises:
        ConfigError: if the result exists.
        FileError: if the file can't be read, or is of a type that depends on the model.
    """
    check_free(output, overwrite)
    file = read(path)
    modules: Modules = {}
    shares = []
    for key, weights in file.modules.items():
        if isinstance(weights, LoraWeights):
            shape = (weights.up.shape[0], *weights.down.shape[1:])
            made = truncate(weights.up.flatten(1), weights.down.flatten(1), shape, weights.alpha / weights.rank, wanted)
        else:
            change = weights.change()
            if change is None:
                raise FileError(
                    f"{path} can't be resized: {key} is of type {weights.label}, which has no rank of its own."
                )
            made = truncate(change.flatten(1), None, weight_shape(key, tuple(change.shape)), 1.0, wanted)
        modules[key] = made.weights
        shares.append(made.kept)
    ranks = [weights.rank for weights in modules.values()]
    write(output, tensors_of(modules), {**file.metadata, **of_network(modules)}, precision, file.words)
    lines = [f"{output.name} has ranks from {min(ranks)} to {max(ranks)}.", in_all(shares), *kept(file)]
    return Made(output, len(modules), lines)
