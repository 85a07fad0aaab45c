"""What a stopped run needs to go on exactly where it was: weights, optimiser, schedule, scaler and position.

No generator is saved: all randomness is a function of seed, epoch and sample (:mod:`lora_trainer.seeds`).
"""

from __future__ import annotations

import copy
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lora_trainer.errors import ConfigError, FileError, LoraTrainerError, first_line, quoted
from lora_trainer.files import parse_json
from lora_trainer.training.identity import changed_rates, check_identity
from lora_trainer.training.state_file import damaged, intact_states, read_state

if TYPE_CHECKING:
    from lora_trainer.network.network import LoraNetwork

FORMAT, KNOWN = 2, (1, 2)  # 1, of version 0.1, doesn't say what the run had seen


@dataclass
class Position:
    """Where in the run: everything before ``group`` of ``epoch`` is done."""

    epoch: int = 1
    group: int = 0  # index of the next group of batches (one optimiser step each) in this epoch
    step: int = 0  # optimiser steps done
    losses: list[float] = field(default_factory=list)  # the latest loss at each group of an epoch
    saved: list[str] = field(default_factory=list)  # names of the intermediate LoRA files, oldest first
    rate: float = 1.0  # share of the learning rates that is left after the training was taken back

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

    def copy(self, epoch_ended: bool = False) -> Position:
        """The same place; the end of an epoch is the start of the next one."""
        place = {"epoch": self.epoch + 1, "group": 0} if epoch_ended else {}
        return Position(**{**asdict(self), **place})


def snapshot(
    network: LoraNetwork, parts: dict[str, Any], position: Position, identity: dict[str, Any], seen: dict[str, Any]
) -> dict[str, Any]:
    """What a state file holds, as it is now: copies, which later steps don't change, in CPU memory.

    Args:
        parts: objects with ``state_dict``: optimizer, scheduler, scaler.
        identity: what must be equal on resuming, see :mod:`lora_trainer.training.identity`.
        seen: what the continuation should know, see :mod:`lora_trainer.training.seen`.
    """
    return {
        "format": FORMAT,
        "network": network.state_dict(torch.float32),
        "parts": {name: _copied(part.state_dict()) for name, part in parts.items()},
        "position": json.dumps(asdict(position)),
        "identity": json.dumps(identity),
        "seen": json.dumps(seen),
    }


def _copied(value: Any) -> Any:
    """A state dict with every tensor copied to the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_copied(one) for one in value)
    return copy.deepcopy(value)


@dataclass(frozen=True)
class Loaded:
    """Where a state came from, what it says, and what the user should know of it."""

    position: Position
    path: Path
    notices: list[str]
    seen: dict[str, Any]  # empty where that isn't known


def load_state(
    path: Path, network: LoraNetwork, parts: dict[str, Any], identity: dict[str, Any], until: float = math.inf
) -> Loaded:
    """Put a saved state back into freshly made objects; where it is damaged, the one before it.

    Args:
        until: the last step that is wanted; newer states are passed over.

    Raises:
        FileError: if there is no state or it is damaged.
        ConfigError: names what differs from the run that was stopped.
    """
    for found in intact_states(path):
        loaded = _load(found, network, parts, identity, until)
        if loaded is not None:
            return loaded
    raise FileError(f"No state in {path.parent} is from before step {until}; start without resuming.")


def _load(
    path: Path, network: LoraNetwork, parts: dict[str, Any], identity: dict[str, Any], until: float
) -> Loaded | None:
    """A state, applied; None if it is newer than wanted."""
    try:
        state = read_state(path)
        if state["format"] in KNOWN and _position(state).step > until:
            return None
        return _apply(path, state, network, parts, identity)
    except LoraTrainerError:
        raise
    except Exception as error:  # a damaged file, or another program's, can hold anything
        raise damaged(path, type(error).__name__) from error


def _apply(
    path: Path, state: dict[str, Any], network: LoraNetwork, parts: dict[str, Any], identity: dict[str, Any]
) -> Loaded:
    if state["format"] not in KNOWN:
        raise ConfigError(
            f"{path} is of another version (state format {quoted(state['format'])}, this one reads up to {FORMAT}); "
            "resume with the version that the run was started with, or start without resuming."
        )
    position = _position(state)
    before = parse_json(state["identity"], "the identity")
    now = json.loads(json.dumps(identity))
    notices = check_identity(before, now)
    if changed_rates(before, now):
        position.rate = 1.0  # whoever sets a rate by hand means that one
    network.load_state_dict(state["network"])
    rates = [float(group["lr"]) for group in parts["optimizer"].param_groups]
    bases = [base * position.rate for base in parts["scheduler"].base_lrs]
    for name, part in parts.items():
        if state["parts"][name]:  # a gradient scaler that was off has none
            _load_part(name, part, state["parts"][name], path)
    apply_rates(parts["optimizer"], parts["scheduler"], rates, bases)
    seen = parse_json(state["seen"], "what it had seen") if "seen" in state else {}
    return Loaded(position, path, notices, seen if isinstance(seen, dict) else {})


def _load_part(name: str, part: Any, state: dict[str, Any], path: Path) -> None:
    """Give a part its state back.

    Raises:
        ConfigError: if another release of the part's package wrote it in another form.
    """
    try:
        part.load_state_dict(state)
    except Exception as error:
        raise ConfigError(
            f"The {name} doesn't take its state from {path} ({first_line(error)}); use the releases of torch and of "
            "the optimiser's package that the run was started with, or start without resuming."
        ) from error


def _position(state: dict[str, Any]) -> Position:
    """The position, if it is one: what it counts with would fail, or go wrong, much later."""
    position = Position(**parse_json(state["position"], "the position"))
    counts = (position.epoch, position.group, position.step)
    if not all(type(count) is int and count >= 0 for count in counts):
        raise TypeError
    if not all(isinstance(loss, (int, float)) for loss in [*position.losses, position.rate]):
        raise TypeError
    if not all(isinstance(name, str) for name in position.saved):
        raise TypeError
    return position


def apply_rates(optimizer: Any, scheduler: Any, rates: list[float], bases: list[float]) -> None:
    """Where a rate was changed for the continuation: the schedule goes on in proportion to the new one.

    Args:
        rates: of the groups, where the old base rate was 0 and there is no proportion.
        bases: the new full rates of the groups.
    """
    for index, (group, new) in enumerate(zip(optimizer.param_groups, bases, strict=True)):
        old = scheduler.base_lrs[index]
        if new != old:
            group["lr"] = group["lr"] * new / old if old else rates[index]
            group["initial_lr"] = scheduler.base_lrs[index] = new
