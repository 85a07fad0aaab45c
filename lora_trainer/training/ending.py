"""How a run ended, written into its ``run.json``: done, stopped, failed, or interrupted.

A run that is killed can't write anything. So ``run.json`` says ``"end": null`` from its beginning on; where that is
still there and nobody holds the run's lock, the run was killed, or the machine went off.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Literal

from lora_trainer.errors import FileError, LoraTrainerError, first_line, memory_problem
from lora_trainer.training.events import CancelToken
from lora_trainer.training.folder import RunFolder

if TYPE_CHECKING:
    from lora_trainer.training.session import Session

log = logging.getLogger(__name__)

End = Literal["done", "stopped", "failed", "interrupted"]  # interrupted: nobody asked for it


@contextmanager
def recorded(session: Session, token: CancelToken) -> Iterator[None]:
    """Write down how what happens in the block ends."""
    try:
        yield
    except GeneratorExit:  # whoever read the events has gone
        _record(session, "stopped" if token.cancelled else "interrupted")
        raise
    except KeyboardInterrupt:
        _record(session, "stopped")
        raise
    except BaseException as error:
        own = str(error) if isinstance(error, LoraTrainerError) else memory_problem(error)
        _record(session, "failed", own or f"{type(error).__name__}: {first_line(error)}")
        raise
    _record(session, "done" if session.position.step >= session.steps else "stopped")


def mark_interrupted(folder: RunFolder) -> None:
    """The program's end stopped the run, not a person: it is to be offered again.

    Raises:
        FileError: if that can't be written.
    """
    facts = folder.read_run()
    end = facts.get("end")
    if isinstance(end, dict) and end.get("state") == "stopped":
        folder.write_run({**facts, "end": {**end, "state": "interrupted"}})


def _record(session: Session, state: End, why: str = "") -> None:
    """Without it the run counts as interrupted, so that a disk that is full does no harm."""
    if not session.processes.is_main or session.replacing:  # that folder is still another run's
        return
    end = {"state": state, "step": session.position.step, "why": why, "time": now()}
    try:
        session.folder.write_run({**session.facts, "notices": list(session.notices), "end": end})
    except FileError as error:
        log.warning("How the run %s ended isn't written down: %s", session.folder.name, error)


def now() -> str:
    """The time for files, in UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
