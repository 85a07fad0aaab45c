"""What a LoRA file says about itself, and which files belong to one run; reads headers only."""

from __future__ import annotations

import glob
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_trainer.card import read_activation_text
from lora_trainer.errors import FileError

RUN_KEYS = (  # metadata that all files of a run have in common
    "ss_session_id", "ss_seed", "ss_max_train_steps", "ss_num_epochs", "ss_network_dim", "ss_network_alpha",
    "ss_learning_rate", "ss_unet_lr", "ss_text_encoder_lr", "ss_optimizer", "ss_dataset_dirs", "ss_sd_model_hash",
)  # fmt: skip
LARGEST_HEADER = 100_000_000  # bytes; safetensors' own limit


@dataclass(frozen=True)
class SavedPoint:
    """A LoRA file saved during training: ``NAME-000002`` after an epoch, ``NAME-step00000100`` after a step."""

    path: Path
    label: str  # "epoch 2", "step 100"
    number: int


def read_metadata(path: Path) -> dict[str, str]:
    """The ``__metadata__`` of a safetensors file; empty if it has none.

    Raises:
        FileError: if the file is missing, cut off or no safetensors file.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = file.read(length) if 2 <= length <= LARGEST_HEADER else b""
        values: Any = json.loads(header) if len(header) == length else None
    except OSError as error:
        raise FileError(f"Can't read the LoRA file {path}: {error.strerror or error}.") from error
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise FileError(f"{path} isn't a complete .safetensors file; choose the LoRA's .safetensors file.")
    return {str(key): str(value) for key, value in values.get("__metadata__", {}).items()}


def read_trigger(path: Path) -> str:
    """The trigger word: what the user wrote on the card, else what the metadata say, else the card's; or empty."""
    own, written = read_activation_text(path)
    metadata = read_metadata(path)
    trigger = metadata.get("modelspec.trigger_phrase", "") or _trigger_of_folders(metadata.get("ss_dataset_dirs", ""))
    return own or trigger or written


def _trigger_of_folders(folders: str) -> str:
    """The words behind the repeats of kohya's only dataset folder; empty if there are several."""
    try:
        names = list(json.loads(folders)) if folders else []
    except ValueError:
        return ""
    found = re.match(r"\d+_(.+)", str(names[0])) if len(names) == 1 else None
    return found.group(1) if found else ""


def read_resolution(path: Path) -> tuple[int, int] | None:
    """Width and height that the LoRA was trained at, or None."""
    metadata = read_metadata(path)
    numbers = re.findall(r"\d+", metadata.get("ss_resolution") or metadata.get("modelspec.resolution") or "")
    return (int(numbers[0]), int(numbers[-1])) if len(numbers) in (1, 2) else None


def saved_points(path: Path) -> list[SavedPoint]:
    """The files saved on the way to the LoRA file ``path``, in the order of training.

    What an earlier run of the same name has left, with other settings, isn't taken for a part of this one.
    """
    run, points = read_metadata(path), []
    for other in path.parent.glob(f"{glob.escape(path.stem)}-*.safetensors"):
        rest = other.stem[len(path.stem) + 1 :]
        if not re.fullmatch(r"\d{6}|step\d{8}", rest) or not _same_run(run, read_metadata(other)):
            continue
        if rest.isdigit():
            points.append((0, SavedPoint(other, f"epoch {int(rest)}", int(rest))))
        else:
            points.append((1, SavedPoint(other, f"step {int(rest[4:])}", int(rest[4:]))))
    return [point for _, point in sorted(points, key=lambda item: (item[0], item[1].number))]


def _same_run(one: dict[str, str], other: dict[str, str]) -> bool:
    return all(one[key] == other[key] for key in RUN_KEYS if key in one and key in other)


def find_lora(lora: str | Path, lora_dir: Path) -> Path:
    """The file of a LoRA given by path or by name, in the folder where the host looks for LoRAs.

    Raises:
        FileError: if there is none, or it lies where ``<lora:…>`` would not find it.
    """
    path = Path(lora)
    if path.suffix != ".safetensors":
        found = sorted(lora_dir.rglob(f"{glob.escape(str(lora))}.safetensors"))
        if not found:
            raise FileError(f"There is no LoRA named {lora!r} in {lora_dir}; check the name.")
        return found[0]
    if not path.is_file():
        raise FileError(f"The LoRA file {path} doesn't exist; check the path.")
    if not path.resolve().is_relative_to(lora_dir.resolve()):
        raise FileError(f"{path} isn't in the LoRA folder {lora_dir}; move it there to test it.")
    read_metadata(path)
    return path
