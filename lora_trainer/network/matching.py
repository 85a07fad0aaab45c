"""Which weights of a LoRA file belong to which part of the model, whatever names the file uses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lora_trainer.errors import FileError
from lora_trainer.families import traits
from lora_trainer.hosts.base import ModelInfo
from lora_trainer.network.file import LoraFile, LoraWeights
from lora_trainer.network.lora import LoraModule
from lora_trainer.network.targets import Target


def match(file: LoraFile, targets: Sequence[Target], info: ModelInfo) -> tuple[dict[str, LoraWeights], list[str]]:
    """The file's weights by the targets' keys, and a line about those that have no target.

    Raises:
        FileError: if the file is for another family or nothing in it fits.
    """
    if file.family is not None and file.family != info.family:
        raise FileError(
            f"{file.path} is a LoRA for {traits(file.family).label}, but {info.checkpoint} is "
            f"{traits(info.family).label}; use a LoRA of the same family."
        )
    by_spelling = {spelling: target for target in targets for spelling in target.spellings}
    matches, strangers = {}, []
    for key, weights in file.modules.items():
        target = by_spelling.get(key)
        if target is None:
            strangers.append(key)
        else:
            matches[target.key] = weights
    if not matches:
        raise FileError(f"No part of {file.path} fits {info.checkpoint} (its first key is {next(iter(file.modules))}).")
    if not strangers:
        return matches, []
    return matches, [
        f"{len(strangers)} of {len(file.modules)} modules of {file.path.name} aren't used, because this model doesn't "
        f"have them or they aren't trained (first {strangers[0]})."
    ]


def copy_weights(module: LoraModule, weights: LoraWeights, path: Path) -> None:
    """Put a file's weights into a layer of the same rank; linear and 1x1 convolution stand for each other.

    Raises:
        FileError: if the shapes differ.
    """
    for name, own, given in (("down", module.down, weights.down), ("up", module.up, weights.up)):
        if given.numel() != own.numel() or given.shape[:2] != own.shape[:2]:
            raise FileError(
                f"{path} doesn't fit this model: {name} of {module.key} has shape {tuple(given.shape)}, "
                f"not {tuple(own.shape)}; use a LoRA for the same model family."
            )
        own.data.copy_(given.reshape(own.shape))
