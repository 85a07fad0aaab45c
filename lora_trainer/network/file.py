"""LoRA files: written byte for byte the same for the same input, read in kohya's and in diffusers' naming."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lora_trainer.errors import FileError, shortened
from lora_trainer.families import Family
from lora_trainer.files import replaced
from lora_trainer.network import formats
from lora_trainer.network.adapter import FileWeights
from lora_trainer.network.embedding import PREFIX
from lora_trainer.network.kinds import read
from lora_trainer.safetensors_file import read_header

LEGACY_START, LEGACY_LENGTH = 0x100000, 0x10000
_TYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}


@dataclass(frozen=True)
class LoraFile:
    """A LoRA file in memory; ``modules`` by kohya's names. ``family`` is None where the file doesn't tell.

    ``words``: the tensors of learned words (``bundle_emb.…``), [tokens, width].
    """

    path: Path
    modules: dict[str, FileWeights]
    metadata: dict[str, str]
    family: Family | None
    words: dict[str, Tensor] = field(default_factory=dict)


def write_lora(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, whole or not at all; adds sd-scripts' two hashes to the metadata.

    The safetensors library orders metadata at random, so the header is written here, sorted.

    Raises:
        FileError: if the folder can't be written or the disk is full; an older file of that name is kept then.
    """
    names = sorted(tensors)
    data = [_bytes(tensors[name]) for name in names]
    training = {key: value for key, value in metadata.items() if key.startswith("ss_")}
    hashes = {
        "sshs_model_hash": _sha256(data),
        "sshs_legacy_hash": legacy_hash(_header(names, tensors, training), *data),
    }
    with replaced(path) as temporary, temporary.open("wb") as stream:
        stream.writelines([_header(names, tensors, {**metadata, **hashes}), *data])
        stream.flush()
        os.fsync(stream.fileno())


def read_lora(path: Path) -> LoraFile:
    """Read a LoRA file in kohya's or diffusers' naming.

    Raises:
        FileError: if it is missing, broken, no LoRA, of another kind or for an unsupported model (says which).
    """
    if path.suffix.lower() != ".safetensors":
        raise FileError(f"{path} isn't a .safetensors file; convert it first, because other formats can contain code.")
    if not path.is_file():
        raise FileError(f"There is no LoRA file {path}; check the path.")
    metadata = dict(read_header(path).metadata)
    try:
        with safe_open(str(path), framework="pt") as stream:
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise FileError(f"{path.name} is damaged ({shortened(str(error))}); copy or train it again.") from error
    words = {name: _word(tensor) for name, tensor in tensors.items() if name.startswith(PREFIX)}
    groups = formats.group(path, {name: tensors[name] for name in tensors if name not in words}, metadata)
    modules = {key: read(path, key, parts) for key, parts in groups.items()}
    widths = {key: weights.input_width for key, weights in modules.items()}
    return LoraFile(path, modules, metadata, formats.family_of(widths, metadata), words)


def _word(tensor: Tensor) -> Tensor:
    """As :func:`write_lora` can write it again; one vector may come without the dimension of the tokens."""
    return torch.atleast_2d(tensor if tensor.dtype in _TYPES else tensor.float())


def legacy_hash(*parts: bytes) -> str:
    """The short hash of older WebUIs: SHA-256 of the 64 KiB that begin 1 MiB into the file, 8 digits."""
    position, window = 0, b""
    for part in parts:
        low, high = max(LEGACY_START - position, 0), LEGACY_START + LEGACY_LENGTH - position
        if low < len(part) and high > 0:
            window += part[low:high]
        position += len(part)
    return hashlib.sha256(window).hexdigest()[:8]


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _sha256(data: list[bytes]) -> str:
    digest = hashlib.sha256()
    for part in data:
        digest.update(part)
    return digest.hexdigest()


def _header(names: list[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Length and JSON header of a safetensors file (https://github.com/huggingface/safetensors#format)."""
    header: dict[str, Any] = {"__metadata__": {key: metadata[key] for key in sorted(metadata)}} if metadata else {}
    end = 0
    for name in names:
        tensor = tensors[name]
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
