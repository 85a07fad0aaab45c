"""What a checkpoint's file says of itself beside its weights: tensors that are only marks, metadata, and its names.

NoobAI and the models made from it carry the empty tensors ``v_pred`` and ``ztsnr``; ModelSpec
(https://github.com/Stability-AI/ModelSpec) and sd-scripts write it into the metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lora_trainer.errors import FileError
from lora_trainer.safetensors_file import read_header


@dataclass(frozen=True)
class Marks:
    """``v_prediction``, ``zero_snr``: what says so, as the end of "because …"; empty where nothing does.

    ``names``: words by which the model may be known: its file, its folder, its title, what it was merged from.
    """

    v_prediction: str = ""
    zero_snr: str = ""
    names: tuple[str, ...] = ()

    def reason(self, option: str) -> str:
        """Why an option follows from the file; empty where it doesn't."""
        return {"v_parameterization": self.v_prediction, "zero_terminal_snr": self.zero_snr}.get(option, "")


NO_MARKS = Marks()


def read_marks(path: Path) -> Marks:
    """The marks of a checkpoint; of one that has no safetensors header, only its names. Read anew when it changes."""
    try:
        found = path.stat()
        return _read(path, (found.st_mtime_ns, found.st_size))
    except OSError:
        return marks_of(path, (), {})


@lru_cache(maxsize=8)
def _read(path: Path, stamp: tuple[int, int]) -> Marks:
    if path.suffix.lower() != ".safetensors":
        return marks_of(path, (), {})
    try:
        header = read_header(path)
    except FileError:
        return marks_of(path, (), {})
    return marks_of(path, header.shapes, header.metadata)


def marks_of(path: Path, tensors: Mapping[str, object] | tuple[str, ...], metadata: Mapping[str, str]) -> Marks:
    """The marks in a header: names of tensors, and metadata."""
    v_prediction = zero_snr = ""
    if metadata.get("modelspec.prediction_type", "").lower() in ("v", "v_prediction", "v-prediction"):
        v_prediction = "its metadata says so (modelspec.prediction_type)"
    elif "v_pred" in tensors:
        v_prediction = "the file has the mark v_pred"
    if "ztsnr" in tensors:
        zero_snr = "the file has the mark ztsnr"
    elif metadata.get("ss_zero_terminal_snr", "").lower() == "true":
        zero_snr = "its metadata says so (ss_zero_terminal_snr)"
    names = (path.stem, path.parent.name, metadata.get("modelspec.title", ""), *_parents(metadata))
    return Marks(v_prediction, zero_snr, tuple(name for name in names if name))


def _parents(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Names of what the WebUI's checkpoint merger made it of."""
    try:
        models = json.loads(metadata.get("sd_merge_models", "{}")).values()
    except (ValueError, AttributeError, RecursionError):
        return ()
    return tuple(str(row["name"]) for row in models if isinstance(row, dict) and "name" in row)
