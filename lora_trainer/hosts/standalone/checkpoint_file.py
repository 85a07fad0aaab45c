"""Reading checkpoint files: first the names and shapes, the weights later and only where they are needed."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from lora_trainer.errors import FileError, UnsupportedModelError
from lora_trainer.safetensors_file import read_header

Shapes = Mapping[str, tuple[int, ...]]

PICKLED = (".ckpt", ".pt", ".pth", ".bin")
USUAL = {"diffusion_model.": "model.diffusion_model."}  # prefixes that some programs write -> those that all others do


@dataclass(frozen=True)
class CheckpointFile:
    """A file of weights: ``shapes`` by tensor name, ``metadata`` of its header, ``weights`` if it was read whole.

    Names are the usual ones; ``in_file`` has those that the file itself calls otherwise.
    """

    path: Path
    shapes: Shapes
    metadata: Mapping[str, str]
    weights: Mapping[str, Tensor] | None = None
    in_file: Mapping[str, str] = field(default_factory=dict)

    def read(self, *prefixes: str) -> dict[str, Tensor]:
        """The tensors whose names begin with one of ``prefixes``, on the CPU in the file's number format.

        Those of a safetensors file are views of the mapped file: memory is used when they are touched.
        """
        if self.weights is not None:
            return {name: tensor for name, tensor in self.weights.items() if name.startswith(prefixes)}
        with safe_open(self.path, framework="pt", device="cpu") as file:
            wanted = [name for name in self.shapes if name.startswith(prefixes)]
            return {name: file.get_tensor(self.in_file.get(name, name)) for name in wanted}


def open_checkpoint(path: Path) -> CheckpointFile:
    """Read a file's tensor names, shapes and metadata.

    Raises:
        FileError: in one sentence, if it is missing, truncated, damaged or no file of weights.
        UnsupportedModelError: if it is a diffusers folder or a format that isn't read.
    """
    if path.is_dir():
        if (path / "model_index.json").exists():
            raise UnsupportedModelError(
                f"{path} is a folder in diffusers' layout; give the model as one .safetensors checkpoint file."
            )
        raise FileError(f"{path} is a folder; give a checkpoint file (.safetensors or .ckpt).")
    if not path.is_file():
        raise FileError(f"The checkpoint {path} doesn't exist; check its path.")
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        header = read_header(path)
        names = _usual_names(header.shapes)
        shapes = {names.get(name, name): shape for name, shape in header.shapes.items()}
        return CheckpointFile(path, shapes, header.metadata, in_file={new: old for old, new in names.items()})
    if suffix in PICKLED:
        return _open_pickled(path)
    raise UnsupportedModelError(
        f"{path.name} isn't a .safetensors or .ckpt file; give a checkpoint in one of these formats."
    )


def _usual_names(names: Iterable[str]) -> dict[str, str]:
    """The usual names of tensors that are called otherwise."""
    found = {}
    for name in names:
        for prefix, usual in USUAL.items():
            if name.startswith(prefix):
                found[name] = usual + name.removeprefix(prefix)
    return found


def _open_pickled(path: Path) -> CheckpointFile:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnsupportedModelError(
            f"{path.name} holds more than weights and isn't opened, since that could run code; "
            "convert it to .safetensors."
        ) from error
    except Exception as error:  # a damaged pickle can raise anything
        raise FileError(f"{path.name} can't be read as a checkpoint: it is truncated or damaged.") from error
    if isinstance(content, Mapping):
        content = content.get("state_dict", content)
    if not isinstance(content, Mapping):
        raise FileError(f"{path.name} holds no named weights; give a checkpoint file.")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    names = _usual_names(tensors)
    weights = {names.get(name, name): value for name, value in tensors.items()}
    return CheckpointFile(path, {name: tuple(value.shape) for name, value in weights.items()}, {}, weights)
