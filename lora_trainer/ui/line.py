"""The queue's work in the page's program: one entry after the other, after whatever is at work.

A thread waits for the job at hand to end and begins the next; it lives for as long as there is something to begin.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lora_trainer.errors import (
    ConfigError,
    FileError,
    HostBusyError,
    LoraTrainerError,
    NameTakenError,
    OtherCheckpointError,
    quoted,
    shortened,
)
from lora_trainer.runs.queue import Queue
from lora_trainer.runs.queued import Queued, begun
from lora_trainer.ui.engine import load
from lora_trainer.ui.request import completed, refuse_unknown, test_plan_of, train_request

if TYPE_CHECKING:
    from lora_trainer.hosts.base import Host
    from lora_trainer.ui.status import Record

log = logging.getLogger(__name__)

EDITED = ("name", "dataset", "config", "trigger", "test", "test_plan", "resume", "overwrite", "checkpoint")


class Trainer(Protocol):
    """The job, as far as the queue needs it."""

    @property
    def host(self) -> Host:
        """Where the model lives."""

    @property
    def output(self) -> Path:
        """The folder that holds the runs' folders, and the queue."""

    @property
    def running(self) -> bool:
        """Whether a job is at work."""

    def train(self, values: Mapping[str, Any], checkpoint: str = "") -> Record:
        """Begin to train."""

    def wants_test(self, values: Mapping[str, Any]) -> bool:
        """Whether a test follows."""

    def wait(self, timeout: float | None = None) -> None:
        """Wait for the end of the job at work."""


class Line:
    """The queue as a page asks for it, and the thread that works on it."""

    def __init__(self, job: Trainer) -> None:
        self.job = job
        self._thread: threading.Thread | None = None
        self._deciding = threading.RLock()  # whether there is a next one, and whether somebody is there to begin it
        self._closed = False
        self._seen: tuple[tuple[Path, int, int], int] | None = None  # the file that was counted, and the number

    @property
    def queue(self) -> Queue:
        """The queue of the output folder as it is set now."""
        return Queue(self.job.output)

    def content(self) -> dict[str, Any]:
        """For the page."""
        return self.queue.read().to_dict()

    def waiting(self) -> int:
        """How many wait; asked for every second, so that the file is read only where it changed."""
        queue = self.queue
        try:
            found = queue.path.stat()
            stamp = (queue.path, found.st_mtime_ns, found.st_size)
            if self._seen is None or self._seen[0] != stamp:
                self._seen = (stamp, len(queue.read().waiting))
        except (OSError, FileError):
            return 0
        return self._seen[1]

    def add(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Put a request to train at the end; while a job is at work it begins by itself afterwards.

        Raises:
            LoraTrainerError: if it can't be carried out; one sentence.
        """
        entry = self.queue.add(self._checked(values, Queued(0, "", "", {})))
        self._follow()
        return entry.to_dict()

    def edit(self, number: int, values: Mapping[str, Any]) -> dict[str, Any]:
        """Change an entry; one that failed or was stopped waits again.

        Raises:
            LoraTrainerError: if it is being trained, or can't be carried out like this.
        """
        refuse_unknown(values, EDITED, "edit")
        queue = self.queue
        before = queue.read().get(number)
        same = {key: value for key, value in _values(queue.output, before).items() if key not in values}
        entry = queue.edit(self._checked({**same, **values}, before))
        self._follow()
        return entry.to_dict()

    def start(self) -> dict[str, Any]:
        """Begin with the next one, now or after the job at hand.

        Raises:
            HostBusyError: if another process works on this queue.
        """
        load()
        queue = self.queue
        with self._deciding:
            queue.hold(False)
            self._begin(queue)
        return self.content()

    def stopped(self) -> str:
        """The job at hand was stopped by a person, who wants no other one to begin: what to say of that."""
        with self._deciding:
            if self._closed or self._thread is None:
                return ""
            try:
                waiting = len(self.queue.read().waiting)
                if not waiting:
                    return ""
                self.queue.hold()
            except LoraTrainerError as error:
                return f" {error}"
        return f" The queue is held, with {waiting} waiting; start it to go on."

    def close(self) -> None:
        """The program ends: nothing more is begun, and what is being trained is to be continued."""
        self._closed = True

    def wait(self, timeout: float | None = None) -> None:
        """Wait until nothing of the queue is at work."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout)

    def _checked(self, values: Mapping[str, Any], before: Queued) -> Queued:
        """An entry out of a request, everything looked at that can be wrong with it."""
        load()
        given = {key: value for key, value in values.items() if key != "checkpoint"}
        wanted = values.get("checkpoint", before.checkpoint)
        if not isinstance(wanted, str):
            raise ConfigError(f"checkpoint can't be {quoted(wanted)}; give a file's name.")
        whole, recorded = completed(given, self.job.output)
        request = train_request(whole, self.job.host, self.job.output)
        loaded = self.job.host.glance()
        return replace(
            before,
            name=request.name,
            dataset=str(request.dataset.absolute()),
            config=request.config.to_dict(),
            trigger=request.trigger,
            test=self.job.wants_test(whole),
            test_plan=test_plan_of(whole, request.name, request.trigger),
            resume=request.resume,
            overwrite=request.overwrite,
            interrupted=False,  # what that means now is in the two above
            checkpoint=wanted or recorded or (loaded.checkpoint if loaded is not None else ""),
        )

    def _follow(self) -> None:
        """What was added begins after the job at hand; where there is none, it waits for the start."""
        with self._deciding:
            if self.job.running and not self._closed:
                try:
                    self._begin(self.queue)
                except HostBusyError as error:  # another process works on this queue, and takes it from there
                    log.info("%s", error)

    def _begin(self, queue: Queue) -> None:
        if self._thread is None:
            stack = ExitStack()
            stack.enter_context(queue.at_work())
            self._thread = threading.Thread(target=self._work, args=(queue, stack), name="lora-trainer-queue")
            self._thread.daemon = True
            self._thread.start()

    def _work(self, queue: Queue, stack: ExitStack) -> None:
        refused: dict[int, str] = {}  # those that another checkpoint is loaded for

        def problem(entry: Queued) -> str:
            return refused.get(entry.id) or self._unfit(entry)

        while True:
            while self.job.running:
                self.job.wait(1.0)
            with self._deciding:
                entry = self._next(queue, problem)
                if entry is None:
                    self._thread = None
                    stack.close()
                    return
            self._train(queue, entry, refused)

    def _next(self, queue: Queue, problem: Any) -> Queued | None:
        try:
            return None if self._closed else queue.take(problem)
        except LoraTrainerError as error:
            log.warning("The queue ends here: %s", error)
        except Exception:
            log.exception("The queue ends here")
        return None

    def _train(self, queue: Queue, entry: Queued, refused: dict[int, str]) -> None:
        """One entry, to its end."""
        try:
            record = self._launched(queue, entry)
            if record is None:
                return
            while record.running:
                self.job.wait(1.0)
            if self._closed:
                queue.interrupted(entry.id)
            elif isinstance(record.cause, OtherCheckpointError):
                refused[entry.id] = record.error
                queue.ended(entry.id, "waiting", record.error)
            else:
                states = {"done": "done", "stopped": "stopped"}
                queue.ended(entry.id, states.get(record.state, "failed"), record.error)  # type: ignore[arg-type]
        except LoraTrainerError as error:
            log.warning("%s: %s", entry.name, error)

    def _launched(self, queue: Queue, entry: Queued) -> Record | None:
        """The record of the entry's job; None if it can't begin."""
        try:
            return self.job.train(_values(queue.output, entry), entry.checkpoint)
        except NameTakenError as error:
            queue.ended(entry.id, "failed", str(error))
        except LoraTrainerError as error:
            began_meanwhile = isinstance(error, HostBusyError) and self.job.running  # somebody was quicker
            queue.ended(entry.id, "waiting" if began_meanwhile else "failed", "" if began_meanwhile else str(error))
        except Exception as error:  # whatever is wrong with this entry, the others are trained
            log.exception("%s failed", entry.name)
            queue.ended(entry.id, "failed", f"Unexpected {type(error).__name__}: {shortened(str(error))}")
        return None

    def _unfit(self, entry: Queued) -> str:
        """Why the entry has to wait for another checkpoint, or for one at all."""
        try:
            loaded = self.job.host.glance()
        except LoraTrainerError as error:
            return str(error)
        if loaded is None:  # it may be loaded when the entry's turn comes
            return ""
        if entry.checkpoint and loaded.checkpoint != entry.checkpoint:
            return str(OtherCheckpointError(entry.name, entry.checkpoint, loaded.checkpoint))
        return loaded.refusal


def _values(output: Path, entry: Queued) -> dict[str, Any]:
    """The entry as a request to train."""
    resume, overwrite = begun(output, entry)
    return {
        "name": entry.name, "dataset": entry.dataset, "config": entry.config, "trigger": entry.trigger,
        "test": entry.test, "test_plan": entry.test_plan, "resume": resume, "overwrite": overwrite,
    }  # fmt: skip
