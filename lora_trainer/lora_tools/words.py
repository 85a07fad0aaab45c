"""Learned words (pivotal tuning) in files that tools work on: kept as they are, since no strength applies to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lora_trainer.errors import ConfigError, FileError, quoted
from lora_trainer.files import name_problem
from lora_trainer.lora_tools.files import check_free
from lora_trainer.network.embedding import PREFIX
from lora_trainer.network.file import LoraFile, write_lora


def words_of(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Words -> their vectors [tokens, width] by part, ``string_to_param.*`` or ``clip_l`` and ``clip_g``."""
    words: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        word, _, part = name.removeprefix(PREFIX).partition(".")
        words.setdefault(word, {})[part] = tensor
    return words


def kept(file: LoraFile) -> list[str]:
    """A line for those that a tool carries on."""
    return [f"The learned word {word} is kept as it is." for word in words_of(file.words)]


def joined(files: Sequence[LoraFile]) -> dict[str, Tensor]:
    """All words of several files.

    Raises:
        ConfigError: if two files have different vectors for a word; a prompt couldn't tell which one it means.
    """
    owners: dict[str, LoraFile] = {}  # capitals make no difference to CLIP's tokens
    found: dict[str, Tensor] = {}
    for file in files:
        for word, parts in words_of(file.words).items():
            first = owners.setdefault(word.casefold(), file)
            names = {f"{PREFIX}{word}.{part}": tensor for part, tensor in parts.items()}
            if first is not file and any(
                name not in found or not torch.equal(found[name], names[name]) for name in names
            ):
                raise ConfigError(
                    f"{first.path.name} and {file.path.name} can't be merged, because each has learned {quoted(word)} "
                    "for itself; train one of them under another trigger word, or with pivotal_tuning off."
                )
            found |= names
    return found


def write_beside(file: LoraFile, output: Path, overwrite: bool) -> list[str]:
    """Write each word as an embedding's file beside ``output``, for programs that read none in a LoRA; a line for each.

    Raises:
        ConfigError: if such a file exists.
        FileError: if a word can't be part of a file's name, or the file can't be written.
    """
    lines, planned = [], {}
    for word, parts in words_of(file.words).items():
        name = f"{output.stem}_{word}.safetensors"
        if why := name_problem(name):
            raise FileError(f"The learned word {quoted(word)} can't be written to a file of its own: {why}.")
        path = output.with_name(name)
        check_free(path, overwrite)
        planned[path] = {"emb_params" if part.startswith("string_to_param") else part: t for part, t in parts.items()}
        lines.append(f"The learned word {word} is the embedding {name} beside it, for the prompt's {word}.")
    for path, tensors in planned.items():
        write_lora(path, tensors, {})
    return lines
