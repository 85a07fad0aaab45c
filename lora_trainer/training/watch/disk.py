"""Whether the disk will be full before the run ends: what it has free, against what is still to be written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lora_trainer.dtypes import DTYPES
from lora_trainer.training.folder import previous
from lora_trainer.training.watch.facts import Finding

if TYPE_CHECKING:
    from lora_trainer.training.session import Session

EVERY = 10  # steps
PIXEL = 2  # bytes of a sample's PNG, where there is none yet


def look_at_disk(run: Session) -> Finding | None:
    """What to tell if the files that are still to be written find no room; a folder that can't be asked has enough."""
    wanted: dict[int, tuple[Path, int]] = {}  # by disk
    for folder, size in ((run.saver.lora_dir, _loras(run)), (run.folder.path, _states(run) + _samples(run))):
        try:
            disk = folder.stat().st_dev
        except OSError:
            continue
        path, so_far = wanted.get(disk, (folder, 0))
        wanted[disk] = (path, so_far + size)
    for path, size in wanted.values():
        try:
            free = shutil.disk_usage(path).free
        except OSError:
            continue
        if free < size:
            return Finding(
                "disk",
                f"The disk of {path} has {_amount(free)} free, but this run is still to write about {_amount(size)}.",
                f"Free {_amount(size - free)}, or it will be full before the end; a higher save_every_n_epochs or "
                "save_every_n_steps needs less.",
            )
    return None


def _loras(run: Session) -> int:
    """Bytes of the LoRA files to come: those on the way, the last one, and the room that writing one takes."""
    at, every = run.position, run.config.save
    epochs, steps = every.save_every_n_epochs, every.save_every_n_steps
    by_epoch = (run.epochs - 1) // epochs - (at.epoch - 1) // epochs if epochs else 0
    by_step = (run.steps - 1) // steps - at.step // steps if steps else 0
    if every.save_last_n_epochs:
        by_epoch = min(by_epoch, every.save_last_n_epochs)
    if every.save_last_n_steps and steps:
        by_step = min(by_step, every.save_last_n_steps // steps + 1)
    weights = sum(parameter.numel() for parameter in run.update.parameters)
    return weights * DTYPES[every.save_precision].itemsize * (by_epoch + by_step + 1)


def _states(run: Session) -> int:
    """Bytes of the two states, as far as they aren't there."""
    weights = sum(parameter.nbytes for parameter in run.update.parameters)
    one = weights + _tensors(run.update.optimizer.state)
    there = sum(path.stat().st_size for path in (run.folder.state, previous(run.folder.state)) if path.is_file())
    return max(0, 2 * one - there)


def _samples(run: Session) -> int:
    """Bytes of the sample pictures to come."""
    every, at = run.config.sample, run.position
    if every.sample_every_n_epochs:
        left = run.epochs // every.sample_every_n_epochs - (at.epoch - 1) // every.sample_every_n_epochs
    else:
        left = (run.steps - at.step) // every.sample_every_n_steps if every.sample_every_n_steps else 0
    return left * sum(request.width * request.height * PIXEL for request in run.sampler.requests)


def _tensors(value: Any) -> int:
    """Bytes of all tensors in nested dicts and lists."""
    if isinstance(value, Tensor):
        return int(value.nbytes)
    if isinstance(value, dict):
        return sum(map(_tensors, value.values()))
    return sum(map(_tensors, value)) if isinstance(value, (list, tuple)) else 0


def _amount(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
