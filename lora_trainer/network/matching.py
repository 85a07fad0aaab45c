"""Which weights of a LoRA file belong to which part of the model, whatever names the file uses."""

from __future__ import annotations

from collections.abc import Sequence

from lora_trainer.errors import FileError
from lora_trainer.families import traits
from lora_trainer.hosts.base import ModelInfo
from lora_trainer.network.adapter import FileWeights
from lora_trainer.network.file import LoraFile
from lora_trainer.network.targets import Target


def match(file: LoraFile, targets: Sequence[Target], info: ModelInfo) -> tuple[dict[str, FileWeights], list[str]]:
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
        raise FileError(f"Nothing in {file.path} fits {info.checkpoint} (its first key is {next(iter(file.modules))}).")
    if not strangers:
        return matches, []
    return matches, [
        f"Not used: {len(strangers)} of the {len(file.modules)} modules of {file.path.name}, because this model "
        f"doesn't have them or they aren't trained (first {strangers[0]})."
    ]
