"""The states of a job, and how an errand stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal[
    "idle", "preparing", "training", "paused", "testing", "captioning", "generating", "done", "failed", "stopped"
]
RUNNING: tuple[State, ...] = ("preparing", "training", "paused", "testing", "captioning", "generating")


@dataclass(frozen=True)
class Stage:
    """How far something is that is no training: automatic captions, for instance."""

    state: State
    what: str  # that is counted
    done: int
    total: int
    message: str
    notices: tuple[str, ...] = ()
