"""The queue of an output folder: ``queue.json``, which any number of processes may change.

Each change is made under a lock and written whole or not at all. One process at a time works on the queue, under a
second lock. That lock goes with its process, however that ends; an entry that says "running" while nobody holds it was
interrupted, and waits to be continued.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lora_trainer.errors import ConfigError, FileError, HostBusyError, quoted
from lora_trainer.files import read_object, write_json
from lora_trainer.runs.queued import ENDED, OPEN, Queued, QueueState, read_entry
from lora_trainer.training.ending import now
from lora_trainer.training.lock import held, in_use

FILE = "queue.json"
VERSION = 1
PATIENCE = 10.0  # seconds for others to finish their change
MOST = 500  # entries
KEPT = 50  # of those that ended


@dataclass
class Content:
    """What the file says."""

    entries: list[Queued] = field(default_factory=list)  # in the order of training; those that ended come first
    held: bool = False  # no further one is begun
    next_id: int = 1

    @property
    def waiting(self) -> list[Queued]:
        """Those that are still to be trained, the next one first."""
        return [entry for entry in self.entries if entry.state == "waiting"]

    @property
    def running(self) -> int | None:
        """The number of the one that is being trained."""
        return next((entry.id for entry in self.entries if entry.state == "running"), None)

    def get(self, number: int) -> Queued:
        """The entry with this number.

        Raises:
            ConfigError: names those there are.
        """
        found = next((entry for entry in self.entries if entry.id == number), None)
        if found is None:
            there = ", ".join(str(entry.id) for entry in self.entries) or "none"
            raise ConfigError(f"The queue has no entry {quoted(number)}; there are: {there}.")
        return found

    def put(self, changed: Queued) -> None:
        """An entry in the place of its former self."""
        self.entries = [changed if entry.id == changed.id else entry for entry in self.entries]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"entries": [entry.to_dict() for entry in self.entries], "held": self.held, "running": self.running}


class Queue:
    """The queue of one output folder."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.path = output / FILE
        self._lock, self._at_work = output / ".queue.lock", output / ".queue-at-work.lock"

    def read(self) -> Content:
        """How it stands.

        Raises:
            FileError: if the file can't be read, or is of a later version. It is never replaced then.
        """
        worked_on = in_use(
            self._at_work
        )  # asked first: whoever works writes down what became of an entry before it ends
        if not self.path.exists():
            return Content()
        found = read_object(self.path)
        version, rows, number = found.get("version"), found.get("entries"), found.get("next_id")
        if type(version) is int and version > VERSION:
            raise FileError(f"{self.path} was written by a later version of Train LoRA; update this one.")
        try:
            if type(version) is not int or not isinstance(rows, list):
                raise ValueError("it holds no entries")
            entries = [read_entry(row) for row in rows]
        except ValueError as error:
            raise FileError(f"{self.path} is damaged ({error}); correct it, or delete it to begin anew.") from None
        if not worked_on:
            entries = _interrupted(entries)
        following = max([0, *(entry.id for entry in entries)]) + 1
        number = max(number, following) if type(number) is int and number < 2**53 else following
        return Content(entries, found.get("held") is True, number)

    def add(self, entry: Queued) -> Queued:
        """Put an entry at the end; gives it with its number.

        Raises:
            ConfigError: if one of its name waits already, or there are too many.
            FileError: if the file can't be read or written.
        """
        with self._changed() as content:
            if len(content.entries) >= MOST:
                raise ConfigError(f"The queue has {MOST} entries, the most that it takes; remove some.")
            _refuse_twice(content, entry)
            entry = replace(entry, id=content.next_id, added=now())
            content.entries.append(entry)
            content.next_id += 1
        return entry

    def edit(self, entry: Queued) -> Queued:
        """Put an entry in the place of the one with its number; one that failed or was stopped waits again.

        Raises:
            ConfigError: if it is being trained, or one of its name waits already.
        """
        with self._changed() as content:
            before = content.get(entry.id)
            _refuse_running(before, "edited")
            _refuse_twice(content, entry)
            entry = replace(entry, state="waiting", why="")
            content.put(entry)
            if before.state in ENDED:
                _to_place(content, entry.id, len(content.waiting))
        return entry

    def remove(self, number: int) -> Queued:
        """Take an entry out; what it has trained stays.

        Raises:
            ConfigError: if it is being trained.
        """
        with self._changed() as content:
            gone = content.get(number)
            _refuse_running(gone, "removed")
            content.entries.remove(gone)
        return gone

    def move(self, number: int, to: Any) -> None:
        """Make a waiting entry the next one (``to`` = 1), the one after (2), ….

        Raises:
            ConfigError: if it doesn't wait.
        """
        with self._changed() as content:
            if content.get(number).state != "waiting":
                raise ConfigError(f"Entry {number} doesn't wait, so it has no place in the queue; edit it first.")
            if type(to) is not int or to < 1:
                raise ConfigError(f"The place can't be {quoted(to)}; give 1 for the next one to be trained, 2, ….")
            _to_place(content, number, to)

    def hold(self, held: bool = True) -> Content:
        """Begin no further entry, or (False) go on; gives how it stands."""
        with self._changed() as content:
            content.held = held
        return content

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Work on the queue, as the only one.

        Raises:
            HostBusyError: if another process does.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(held(self._at_work))
            except HostBusyError:
                raise HostBusyError(
                    f"The queue of {self.output} is being worked on by another process; it trains what you add, too."
                ) from None
            with self._changed() as content:  # what a process that is gone has left
                content.entries = [
                    entry.interrupt() if entry.state == "running" else entry for entry in content.entries
                ]
            yield

    def take(self, problem: Callable[[Queued], str] = lambda entry: "") -> Queued | None:
        """The next entry to train, which is "running" from now on; None if the queue is held or has none.

        Args:
            problem: why an entry can't be trained now, in one sentence; such a one goes on waiting.
        """
        with self._changed() as content:
            if content.held:
                return None
            for entry in content.waiting:
                why = problem(entry)
                since = entry.taken if entry.interrupted else now()
                content.put(replace(entry, why=why) if why else replace(entry, state="running", why="", taken=since))
                if not why:
                    return content.get(entry.id)
        return None

    def ended(self, number: int, state: QueueState, why: str = "") -> None:
        """Write down what became of the entry that was taken; "waiting" puts it back as it was."""
        with self._changed() as content:
            entry = next((entry for entry in content.entries if entry.id == number), None)
            if entry is not None:
                content.put(replace(entry, state=state, why=why))

    def interrupted(self, number: int) -> None:
        """The program ends while the entry is being trained."""
        with self._changed() as content:
            content.put(content.get(number).interrupt())

    @contextmanager
    def _changed(self) -> Iterator[Content]:
        """The content under the lock; written where the block changed it, and left as it was if the block fails."""
        with _patient(self._lock, self.path):
            content = self.read()
            yield content
            ended = [entry for entry in content.entries if entry.state in ENDED]
            rest = [entry for entry in content.entries if entry.state in OPEN]
            content.entries = ended[-KEPT:] + sorted(rest, key=lambda entry: entry.state != "running")
            found = {"version": VERSION, **content.to_dict(), "next_id": content.next_id}
            del found["running"]  # which follows
            write_json(self.path, found)


@contextmanager
def _patient(lock: Path, what: Path) -> Iterator[None]:
    """Hold a lock that nobody holds for long."""
    end = time.monotonic() + PATIENCE
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(held(lock))
                break
            except HostBusyError:
                if time.monotonic() > end:
                    raise HostBusyError(f"{what} is being changed by another process; try again.") from None
        yield


def _interrupted(entries: list[Queued]) -> list[Queued]:
    return [entry.interrupt() if entry.state == "running" else entry for entry in entries]


def _to_place(content: Content, number: int, place: int) -> None:
    """Move a waiting entry among those that wait; those that don't stay where they are."""
    entry = content.get(number)
    others = [other for other in content.waiting if other.id != number]
    others.insert(min(place, len(others) + 1) - 1, entry)
    content.entries = [other for other in content.entries if other.state != "waiting"] + others


def _refuse_running(entry: Queued, what: str) -> None:
    if entry.state == "running":
        raise ConfigError(f"Entry {entry.id} ({entry.name}) is being trained, so it can't be {what}; stop it first.")


def _refuse_twice(content: Content, entry: Queued) -> None:
    for other in content.entries:
        if other.id != entry.id and other.state in OPEN and other.name == entry.name:
            raise ConfigError(
                f"The queue has {quoted(entry.name)} already (entry {other.id}); edit that one, or choose another name."
            )
