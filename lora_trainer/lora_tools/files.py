"""What the tools have in common: reading files with the same keys for the same modules, and writing a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from lora_trainer.dtypes import DTYPES
from lora_trainer.errors import ConfigError, FileError
from lora_trainer.families import Family, traits
from lora_trainer.lora_tools.names import canonical
from lora_trainer.network.adapter import FileWeights
from lora_trainer.network.file import LoraFile, read_lora, write_lora

Modules = dict[str, FileWeights]
PRECISIONS = ("fp16", "bf16", "float")


@dataclass(frozen=True)
class Made:
    """What a tool has written, and what is to know of it, a sentence each."""

    path: Path
    modules: int
    lines: list[str] = field(default_factory=list)


def read(path: Path) -> LoraFile:
    """A LoRA file whose modules are called as kohya's files of its family call them.

    Raises:
        FileError: if it can't be read.
    """
    file = read_lora(path)
    modules = {canonical(key, file.family): weights for key, weights in file.modules.items()}
    return LoraFile(path, modules, file.metadata, file.family, file.words)


def one_family(files: Sequence[LoraFile]) -> Family | None:
    """The family of all files, as far as they tell.

    Raises:
        ConfigError: if they are for different ones.
    """
    known = {file.family: file for file in files if file.family}
    if len(known) > 1:
        first, second = list(known.values())[:2]
        raise ConfigError(
            f"{first.path.name} is for {traits(first.family).label} and {second.path.name} for "  # type: ignore[arg-type]
            f"{traits(second.family).label}; give LoRAs of one family."  # type: ignore[arg-type]
        )
    return next(iter(known), None)


def tensors_of(modules: Mapping[str, FileWeights]) -> dict[str, Tensor]:
    """All tensors by their keys in kohya's format."""
    return {f"{key}.{part}": tensor for key, weights in modules.items() for part, tensor in weights.parts().items()}


def check_free(path: Path, overwrite: bool) -> None:
    """Refuse to write over a file, and to write anything but safetensors.

    Raises:
        ConfigError: names the file.
    """
    if path.suffix != ".safetensors":
        raise ConfigError(f"{path} can't be written: give a file name that ends in .safetensors.")
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} exists already and was left as it is; give another name, or --overwrite.")


def write(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    precision: str,
    words: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a LoRA file in a number format; what the format can't hold is refused.

    Args:
        words: tensors of learned words, which are written as they are.

    Raises:
        ConfigError: for a number format that isn't one.
        FileError: if the file can't be written, or numbers are too large for the format.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"save_precision can't be {precision}; choose one of {', '.join(PRECISIONS)}.")
    cast = {name: tensor.to(DTYPES[precision]).contiguous() for name, tensor in tensors.items()}
    large = next((name for name, tensor in cast.items() if not bool(torch.isfinite(tensor).all())), None)
    if large:
        raise FileError(f"{large} is too large for {precision}; write the file as bf16 or float.")
    said = {**metadata, "ss_output_name": path.stem}
    if "modelspec.title" in said:
        said["modelspec.title"] = path.stem
    write_lora(path, {**cast, **(words or {})}, said)


def of_network(modules: Mapping[str, FileWeights]) -> dict[str, str]:
    """What the metadata say of ranks and alphas of plain LoRAs: a number where all have the same."""
    ranks, alphas = ({getattr(w, name) for w in modules.values()} for name in ("rank", "alpha"))
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(ranks.pop()) if len(ranks) == 1 else "Dynamic",
        "ss_network_alpha": str(alphas.pop()) if len(alphas) == 1 else "Dynamic",
        "ss_network_args": "{}",
    }
