"""Put the practice project, checkpoint and dataset, into a WebUI. Needs neither torch nor diffusers."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from lora_trainer.demo import CHECKPOINT, CONFIG, TOKENIZER
from lora_trainer.errors import FileError
from lora_trainer.files import replaced, write_text

DATASET = "practice"  # folder of the dataset
_TOKENIZER = re.compile(r"(?<=version: )[^\n}]+")


@dataclass(frozen=True)
class Practice:
    """What was installed."""

    checkpoint: Path | None  # None where there is one already
    dataset: Path
    trigger: str


def install_practice(models_dir: Path | None, datasets: Path) -> Practice:
    """Install checkpoint, config and dataset. What is there already and the same is left alone.

    Args:
        models_dir: where the WebUI finds checkpoints; None for the dataset alone.

    Raises:
        FileError: one of the files is there with other contents, or a folder can't be written.
    """
    from lora_trainer.demo.dataset import FOLDER, TRIGGER, write_dataset

    checkpoint = install(models_dir) if models_dir is not None else None
    dataset = datasets / DATASET
    if not (dataset / FOLDER).is_dir():  # a person may have changed captions in one that is there
        temporary = datasets / f".{DATASET}.{uuid4().hex[:8]}.tmp"
        try:
            write_dataset(temporary)
            dataset.mkdir(parents=True, exist_ok=True)
            (temporary / FOLDER).replace(dataset / FOLDER)
        except OSError as error:
            raise FileError(f"The dataset can't be written to {dataset} ({error.strerror}).") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return Practice(checkpoint, dataset, TRIGGER)


def install(models_dir: Path) -> Path:
    """Copy the checkpoint into a WebUI's ``models/Stable-diffusion``; returns the copy.

    The config beside it gets the tokenizer's absolute folder, since A1111 looks that up from its own working directory.
    A file that is already there and the same is left alone, and one that is somebody else's is never replaced.

    Raises:
        FileError: a file of that name is there with other contents, or the folder can't be written.
    """
    target = models_dir / CHECKPOINT.name
    config = target.with_suffix(".yaml")
    folder = json.dumps(TOKENIZER.as_posix(), ensure_ascii=False)  # a quoted YAML string
    ours, count = _TOKENIZER.subn(lambda _: folder, CONFIG.read_text("utf-8"))
    if count != 1:
        raise ValueError(f"{CONFIG} has {count} lines with the tokenizer's folder, expected one")
    for path, same in ((target, _same_bytes), (config, _same_but_for_the_folder)):
        if path.exists() and not same(path):
            raise FileError(f"{path} already exists with other contents; move it away or rename it, then try again.")
    if not target.exists():
        with replaced(target) as temporary:
            shutil.copyfile(CHECKPOINT, temporary)
    if not config.exists() or config.read_text("utf-8") != ours:  # the extension may have been moved
        write_text(config, ours)
    return target


def _same_bytes(path: Path) -> bool:
    return path.is_file() and path.read_bytes() == CHECKPOINT.read_bytes()


def _same_but_for_the_folder(path: Path) -> bool:
    try:
        theirs = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return _TOKENIZER.sub("", theirs) == _TOKENIZER.sub("", CONFIG.read_text("utf-8"))
