"""Reading checkpoint files: first the names and shapes, the weights later and only where they are needed."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from lora_trainer.errors import FileError, LoraTrainerError, UnsupportedModelError

Shapes = Mapping[str, tuple[int, ...]]

PICKLED = (".ckpt", ".pt", ".pth")
LARGEST_HEADER = 100_000_000  # bytes; the format's own limit
ITEM_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip


@dataclass(frozen=True)
class CheckpointFile:
    """A file of weights: ``shapes`` by tensor name, ``metadata`` of its header, ``weights`` if it was read whole."""

    path: Path
    shapes: Shapes
    metadata: Mapping[str, str]
    weights: Mapping[str, Tensor] | None = None

    def read(self, *prefixes: str) -> dict[str, Tensor]:
        """The tensors whose names begin with one of ``prefixes``, on the CPU in the file's number format.

        Those of a safetensors file are views of the mapped file: memory is used when they are touched.
        """
        if self.weights is not None:
            return {name: tensor for name, tensor in self.weights.items() if name.startswith(prefixes)}
        with safe_open(self.path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in self.shapes if name.startswith(prefixes)}


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
        return _open_safetensors(path)
    if suffix in PICKLED:
        return _open_pickled(path)
    raise UnsupportedModelError(f"{path.name} has an ending that isn't read; use a .safetensors or .ckpt checkpoint.")


def _open_safetensors(path: Path) -> CheckpointFile:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > LARGEST_HEADER:
                raise ValueError
            if size < 10 or length > size:
                raise _truncated(path)
            header = json.loads(file.read(length))
        metadata = {str(k): str(v) for k, v in header.pop("__metadata__", {}).items()}
        shapes = {name: tuple(int(side) for side in row["shape"]) for name, row in header.items()}
        ends = [int(row["data_offsets"][1]) for row in header.values()]
        wrong = [name for name, row in header.items() if _wrong_extent(row)]
    except OSError as error:
        raise FileError(f"Can't read {path}: {error.strerror}; check the file and its permissions.") from error
    except LoraTrainerError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileError(
            f"{path.name} isn't a safetensors file, or its header is damaged; download it again."
        ) from error
    if size < 8 + length + max(ends, default=0):
        raise _truncated(path)
    if wrong or size > 8 + length + max(ends, default=0):
        raise FileError(f"{path.name} is damaged: its header doesn't fit its contents; download it again.")
    return CheckpointFile(path, shapes, metadata)


def _wrong_extent(row: Mapping[str, Any]) -> bool:
    begin, end = row["data_offsets"]
    item = ITEM_BYTES.get(row["dtype"])
    return item is not None and end - begin != math.prod(row["shape"]) * item


def _truncated(path: Path) -> FileError:
    return FileError(f"{path.name} is truncated: it is shorter than its header says; download it again.")


def _open_pickled(path: Path) -> CheckpointFile:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnsupportedModelError(
            f"{path.name} holds more than weights and isn't opened, since that could run code; "
            "convert it to .safetensors."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        raise FileError(f"{path.name} can't be read as a checkpoint: it is truncated or damaged.") from error
    if isinstance(content, Mapping):
        content = content.get("state_dict", content)
    if not isinstance(content, Mapping):
        raise FileError(f"{path.name} holds no named weights; give a checkpoint file.")
    weights = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    return CheckpointFile(path, {name: tuple(value.shape) for name, value in weights.items()}, {}, weights)
