"""A job among the WebUI's own: its queue, its progress bar, its Interrupt, and turns for those who wait."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from modules import call_queue, progress, shared

from lora_trainer.hosts.base import Progress

if TYPE_CHECKING:
    from lora_trainer.training.events import CancelToken

HANDOVER = 0.3  # seconds for a woken request to take the queue; one that is slower gets the next turn


class Shift:
    """Holds the queue and ``shared.state`` for a job, from :meth:`begin` to :meth:`end`."""

    def __init__(self, job: str, token: CancelToken) -> None:
        self.job, self.token = job, token
        self.lent = False
        self._owed = False  # a turn to somebody whom the queue has called but who wasn't quick enough
        self._shown = Progress(0, 0)

    def begin(self) -> None:
        """Wait in the queue, then begin."""
        progress.add_task_to_queue(self.job)
        call_queue.queue_lock.acquire()
        try:
            vars(shared.state)["request_restart"] = self._restart_quietly
            self._begin_task()
        except BaseException:
            vars(shared.state).pop("request_restart", None)
            call_queue.queue_lock.release()
            raise

    def end(self) -> None:
        """Let the next one begin."""
        try:
            vars(shared.state).pop("request_restart", None)
            self._end_task()
            progress.finish_task(self.job)
        finally:
            call_queue.queue_lock.release()

    def show(self, now: Progress) -> None:
        """Bring the progress bar, the estimate and ``/sdapi/v1/progress`` up to date."""
        state = shared.state
        if now.total != self._shown.total or now.done < self._shown.done:
            state.time_start = time.time()  # another part of the job: its own estimate
            state.job_no = 0
        self._shown = now
        state.job_count, state.job_no = max(now.total, 1), min(now.done, max(now.total - 1, 0))
        state.sampling_step = state.sampling_steps = 0
        state.textinfo = now.text

    def listen(self) -> bool:
        """Pass the WebUI's Interrupt on to the job; whether there was one."""
        state = shared.state
        asked = bool(state.interrupted or state.stopping_generation)
        if asked:
            self.token.cancel()
        state.interrupted = state.stopping_generation = state.skipped = False
        return asked

    def others_wait(self) -> bool:
        """Whether anybody stands in the queue."""
        return self._owed or _pending()

    @contextmanager
    def released(self) -> Iterator[None]:
        """Let everybody who waits now have a turn, then take the queue back."""
        state, owed, pending = shared.state, self._owed, _pending()
        running, job_no = time.time() - (state.time_start or time.time()), state.job_no
        self._end_task()
        progress.add_task_to_queue(self.job)
        self.lent = True
        call_queue.queue_lock.release()
        try:
            taken = (owed or pending) and _taken_over()
            self._owed = pending and not taken
            yield
        finally:
            call_queue.queue_lock.acquire()
            self.lent = False
            self._begin_task()
            state.time_start = time.time() - running
            state.job_no = job_no
            self.show(self._shown)

    def _begin_task(self) -> None:
        shared.state.begin(job=self.job)
        progress.start_task(self.job)

    def _end_task(self) -> None:
        state = shared.state
        state.end()
        state.interrupted = state.skipped = state.stopping_generation = False
        state.textinfo = None
        if progress.current_task == self.job:
            progress.current_task = None

    def _restart_quietly(self) -> None:
        """ "Reload UI" interrupts what runs; a training goes on, its page comes back to it."""
        if self.lent:
            shared.state.interrupt()
        shared.state.server_command = "restart"


def _pending() -> bool:
    return bool(getattr(call_queue.queue_lock, "_pending_threads", ()))


def _taken_over() -> bool:
    """Whether somebody has the queue now. It hands over in two movements; between them it would let us in again."""
    lock: Any = getattr(call_queue.queue_lock, "_lock", None)
    end = time.monotonic() + HANDOVER
    while lock is not None and not lock.locked():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True
