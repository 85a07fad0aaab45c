"""What a LoRA file says about itself, and which files belong to one run; reads headers only."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lora_trainer.card import read_activation_text
from lora_trainer.errors import FileError
from lora_trainer.files import parse_json
from lora_trainer.safetensors_file import read_header, whole_number

RUN_KEYS = (  # metadata that all files of a run have in common
    "ss_session_id", "ss_seed", "ss_max_train_steps", "ss_num_epochs", "ss_network_dim", "ss_network_alpha",
    "ss_learning_rate", "ss_unet_lr", "ss_text_encoder_lr", "ss_optimizer", "ss_dataset_dirs", "ss_sd_model_hash",
)  # fmt: skip

LARGEST_SIDE = 16384  # pixels


@dataclass(frozen=True)
class SavedPoint:
    """A LoRA file saved during training: ``NAME-000002`` after an epoch, ``NAME-step00000100`` after a step, or
    ``NAME-ema`` with the moving average."""

    path: Path
    label: str  # "epoch 2", "step 100", "average (EMA)"
    number: int


def read_metadata(path: Path) -> Mapping[str, str]:
    """The metadata of a LoRA file; empty if it has none.

    Raises:
        FileError: if the file is missing, cut off or no safetensors file.
    """
    return read_header(path).metadata


def read_trigger(path: Path) -> str:
    """The trigger word: what the user wrote on the card, else what the metadata say, else the card's; or empty."""
    own, written = read_activation_text(path)
    metadata = read_metadata(path)
    trigger = metadata.get("modelspec.trigger_phrase", "") or _trigger_of_folders(metadata.get("ss_dataset_dirs", ""))
    return own or trigger or written


def _trigger_of_folders(folders: str) -> str:
    """The words behind the repeats of kohya's only dataset folder; empty if there are several."""
    try:
        names = parse_json(folders, "ss_dataset_dirs") if folders else {}
    except FileError:
        return ""
    names = list(names) if isinstance(names, dict) else []
    found = re.match(r"\d+_(.+)", names[0]) if len(names) == 1 else None
    return found.group(1) if found else ""


def read_resolution(path: Path) -> tuple[int, int] | None:
    """Width and height that the LoRA was trained at, or None."""
    metadata = read_metadata(path)
    words = re.findall(r"\d+", metadata.get("ss_resolution") or metadata.get("modelspec.resolution") or "")
    numbers = [number for word in words if (number := whole_number(word, LARGEST_SIDE))]
    return (numbers[0], numbers[-1]) if len(numbers) == len(words) in (1, 2) else None


def saved_points(path: Path) -> list[SavedPoint]:
    """The files saved on the way to the LoRA file ``path``, in the order of training; the average is the last.

    What an earlier run of the same name has left, with other settings, isn't taken for a part of this one.
    """
    run, points = read_metadata(path), []
    for other in path.parent.glob(f"{glob.escape(path.stem)}-*.safetensors"):
        rest = other.stem[len(path.stem) + 1 :]
        if not re.fullmatch(r"\d{6}|step\d{8}|ema", rest) or not _same_run(run, read_metadata(other)):
            continue
        if rest == "ema":
            points.append((2, SavedPoint(other, "average (EMA)", 0)))
        elif rest.isdigit():
            points.append((0, SavedPoint(other, f"epoch {int(rest)}", int(rest))))
        else:
            points.append((1, SavedPoint(other, f"step {int(rest[4:])}", int(rest[4:]))))
    return [point for _, point in sorted(points, key=lambda item: (item[0], item[1].number))]


def _same_run(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    return all(one[key] == other[key] for key in RUN_KEYS if key in one and key in other)
