"""Checks and copies of images that are at work: how far they are, and their stop. They don't need the model."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from lora_trainer.errors import LoraTrainerError


class OnStage(Protocol):
    """Told after each image how many are done; ``what`` where something else begins."""

    def __call__(self, done: int, total: int, what: str = ..., /) -> None:
        """See above."""


class StoppedError(LoraTrainerError):
    """Somebody stopped it."""


@dataclass
class _Task:
    what: str
    done: int = 0
    total: int = 0
    stopped: bool = False


class Looking:
    """What is at work now; usable from several threads."""

    def __init__(self) -> None:
        self._tasks: list[_Task] = []
        self._lock = threading.Lock()

    @contextmanager
    def at_work(self, what: str) -> Iterator[OnStage]:
        """Show something for as long as the block lasts; call what is given after each image.

        Raises:
            StoppedError: by that call, once :meth:`stop` was called.
        """
        task = _Task(what)

        def seen(done: int, total: int, what: str = what) -> None:
            task.what, task.done, task.total = what, done, total
            if task.stopped:
                raise StoppedError(f"Stopped after {done} of {total} images. What was seen so far is remembered.")

        with self._lock:
            self._tasks.append(task)
        try:
            yield seen
        finally:
            with self._lock:
                self._tasks.remove(task)

    def to_dict(self) -> dict[str, Any] | None:
        """The newest that is at work, for the page; None if there is nothing."""
        with self._lock:
            now = self._tasks[-1] if self._tasks else None
        return {"what": now.what, "done": now.done, "total": now.total} if now else None

    def stop(self) -> bool:
        """Stop all; whether there was something to stop."""
        with self._lock:
            for task in self._tasks:
                task.stopped = True
            return bool(self._tasks)
