"""What a stopped run needs to go on exactly where it was: weights, optimiser, schedule, scaler and position.

No generator is saved: all randomness is a function of seed, epoch and sample (:mod:`lora_trainer.seeds`).
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zipfile
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch

from lora_trainer.errors import ConfigError, FileError, LoraTrainerError, quoted, shortened
from lora_trainer.files import parse_json, replaced
from lora_trainer.training.folder import previous

if TYPE_CHECKING:
    from lora_trainer.network.network import LoraNetwork

FORMAT = 1
SEAL = b"sha256:"
# Options that may differ between a run and its continuation: what was computed already stays valid.
FREE_ON_RESUME = frozenset({
    "max_train_epochs", "max_train_steps", "save_precision", "save_every_n_epochs", "save_every_n_steps",
    "save_last_n_epochs", "save_last_n_steps", "save_state_every_n_minutes", "sample_prompts", "sample_every_n_epochs",
    "sample_every_n_steps", "sample_at_first", "sample_sampler", "training_comment", "metadata_title",
    "metadata_author", "metadata_description", "metadata_license", "metadata_tags", "vae_batch_size",
    "cache_latents_to_disk", "cache_text_encoder_outputs_to_disk",
    "learning_rate", "unet_lr", "text_encoder_lr", "max_grad_norm", "mixed_precision",  # the remedies for NaN
})  # fmt: skip


@dataclass
class Position:
    """Where in the run: everything before ``group`` of ``epoch`` is done."""

    epoch: int = 1
    group: int = 0  # index of the next group of batches (one optimiser step each) in this epoch
    step: int = 0  # optimiser steps done
    losses: list[float] = field(default_factory=list)  # the latest loss at each group of an epoch
    saved: list[str] = field(default_factory=list)  # names of the intermediate LoRA files, oldest first

    @property
    def average(self) -> float:
        """Mean loss of the last epoch's worth of steps (sd-scripts' loss/average)."""
        return sum(self.losses) / len(self.losses) if self.losses else float("nan")

    def record(self, loss: float) -> None:
        """Note the loss of the step at ``group`` and move on to the next."""
        if self.group < len(self.losses):
            self.losses[self.group] = loss
        else:
            self.losses.append(loss)
        self.step, self.group = self.step + 1, self.group + 1


def save_state(
    path: Path,
    network: LoraNetwork,
    parts: dict[str, Any],
    position: Position,
    identity: dict[str, Any],
) -> None:
    """Write the state file, whole or not at all.

    Args:
        parts: objects with ``state_dict``: optimizer, scheduler, scaler.
        identity: what must be equal on resuming: the configuration, the dataset and the model.
    """
    state = {
        "format": FORMAT,
        "network": network.state_dict(torch.float32),
        "parts": {name: part.state_dict() for name, part in parts.items()},
        "position": json.dumps(asdict(position)),
        "identity": json.dumps(identity),
    }
    try:
        _write(path, state)
    except FileError:
        if not previous(path).is_file():
            raise
        previous(path).unlink(missing_ok=True)  # the room for it may be what the new one needs
        _write(path, state)


def _write(path: Path, state: dict[str, Any]) -> None:
    """Write a state; the one that was there stays, as the previous one."""
    with replaced(path) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:  # its word for a disk that is full
            raise OSError(str(error).splitlines()[0]) from error
        _seal(temporary)
        if path.is_file():
            path.replace(previous(path))


def _seal(path: Path) -> None:
    """Put the checksum of a zip archive, which a state is, into the archive's comment, where readers don't mind it."""
    with path.open("r+b") as file:
        file.seek(-2, os.SEEK_END)  # the length of the comment, which ends the archive
        length = file.tell()
        if file.read() != bytes(2):
            return  # not as we know it; it is still read, with the archive's own checks
        comment = SEAL + _sha256(file, length).encode()
        file.seek(length)
        file.write(len(comment).to_bytes(2, "little") + comment)
        file.flush()
        os.fsync(file.fileno())


def _intact(path: Path) -> bool:
    """Whether every byte is as it was written. torch itself accepts a state with a flipped bit."""
    try:
        with path.open("rb") as file:
            size = len(SEAL) + 64
            file.seek(-size - 2, os.SEEK_END)
            end, length, tail = file.tell(), file.read(2), file.read()
            if tail.startswith(SEAL):
                return length == size.to_bytes(2, "little") and tail[len(SEAL) :] == _sha256(file, end).encode()
        with zipfile.ZipFile(path) as archive:  # version 0.1 wrote no checksum, but an archive has some
            return archive.testzip() is None
    except (OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error, struct.error):
        return False


def _sha256(file: IO[bytes], end: int) -> str:
    """The checksum of a file up to ``end``."""
    found = hashlib.sha256()
    file.seek(0)
    while block := file.read(min(1 << 20, end - file.tell())):
        found.update(block)
    return found.hexdigest()


def load_state(
    path: Path, network: LoraNetwork, parts: dict[str, Any], identity: dict[str, Any]
) -> tuple[Position, Path]:
    """Put a saved state back into freshly made objects; where it is damaged, the one before it.

    Returns:
        The position, and which file it came from.

    Raises:
        FileError: if there is no state or it is damaged.
        ConfigError: names what differs from the run that was stopped.
    """
    path = _newest(path)
    try:
        return _load(path, network, parts, identity), path
    except LoraTrainerError:
        raise
    except Exception as error:  # a damaged file, or another program's, can hold anything
        raise FileError(f"The state {path} is damaged ({type(error).__name__}); start without resuming.") from error


def _load(path: Path, network: LoraNetwork, parts: dict[str, Any], identity: dict[str, Any]) -> Position:
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["format"] != FORMAT:
        raise ConfigError(
            f"{path} has state format {quoted(state['format'])}; this program reads {FORMAT}. Start without resuming."
        )
    position = _position(parse_json(state["position"], "the position"))
    before = parse_json(state["identity"], "the identity")
    _check_identity(before, json.loads(json.dumps(identity)))
    network.load_state_dict(state["network"])
    rates = [float(group["lr"]) for group in parts["optimizer"].param_groups]
    bases = list(parts["scheduler"].base_lrs)
    for name, part in parts.items():
        if state["parts"][name]:  # a gradient scaler that was off has none
            part.load_state_dict(state["parts"][name])
    _apply_rates(parts["optimizer"], parts["scheduler"], rates, bases)
    return position


def _newest(path: Path) -> Path:
    """The newest state that is intact.

    Raises:
        FileError: if there is none.
    """
    states = [one for one in (path, previous(path)) if one.is_file()]
    if not states:
        raise FileError(f"There is nothing to resume: {path} doesn't exist. Start without resuming.")
    intact = next((one for one in states if _intact(one)), None)
    if intact is None:
        raise FileError(f"The state {path} is damaged; start without resuming.")
    return intact


def _position(values: dict[str, Any]) -> Position:
    """The position, if it is one: what it counts with would fail, or go wrong, much later."""
    position = Position(**values)
    counts = (position.epoch, position.group, position.step)
    if not all(type(count) is int and count >= 0 for count in counts):
        raise TypeError
    if not all(isinstance(loss, (int, float)) for loss in position.losses):
        raise TypeError
    if not all(isinstance(name, str) for name in position.saved):
        raise TypeError
    return position


def _apply_rates(optimizer: Any, scheduler: Any, rates: list[float], bases: list[float]) -> None:
    """Where a rate was changed for the continuation: the schedule goes on in proportion to the new one."""
    for index, (group, new) in enumerate(zip(optimizer.param_groups, bases, strict=True)):
        old = scheduler.base_lrs[index]
        if new != old:
            group["lr"] = group["lr"] * new / old if old else rates[index]
            group["initial_lr"] = scheduler.base_lrs[index] = new


def _check_identity(before: dict[str, Any], now: dict[str, Any]) -> None:
    for name in sorted(before["config"].keys() | now["config"].keys()):
        if name not in FREE_ON_RESUME and before["config"].get(name) != now["config"].get(name):
            old, new = before["config"].get(name), now["config"].get(name)
            raise ConfigError(
                f"Can't resume: {name} was {quoted(old)}, now {quoted(new)}. Set it back, or start without resuming."
            )
    for what in ("dataset", "model", "processes"):
        if before[what] != now[what]:
            raise ConfigError(
                f"Can't resume: the {what} isn't the one the run was started with "
                f"({shortened(str(before[what]))} then, {now[what]} now). Put it back or start without --resume."
            )
