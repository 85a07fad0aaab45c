"""The one job at a time: a background thread that trains and tests, and what a page may ask of it.

It knows no gradio and no WebUI. Between two events of the training the model carries nothing of ours, so this is where
it is paused, and where the host serves others (:meth:`lora_trainer.hosts.base.Host.between_steps`).
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_trainer.errors import FileError, HostBusyError, LoraTrainerError, OtherCheckpointError, unexpected
from lora_trainer.training.ending import mark_interrupted
from lora_trainer.training.events import CancelToken, Preparing
from lora_trainer.training.folder import RunFolder
from lora_trainer.ui.engine import importing, load
from lora_trainer.ui.errands.errand import Errand
from lora_trainer.ui.line import Line
from lora_trainer.ui.looking import Looking
from lora_trainer.ui.request import (
    TEST_KEYS,
    check_dataset,
    completed,
    flag_of,
    refuse_unknown,
    test_plan_of,
    text_of,
    train_request,
)
from lora_trainer.ui.status import Record

if TYPE_CHECKING:
    from lora_trainer.evaluation.plan import TestPlan
    from lora_trainer.hosts.base import Host
    from lora_trainer.training.request import RunRequest

log = logging.getLogger(__name__)


class Job:
    """Runs one training or test at a time in a thread of its own.

    Args:
        host: makes the host at the first start.
        output: gives the folder that holds the runs' folders.
        test_after: whether a run is tested when the request doesn't say.
    """

    def __init__(
        self, host: Callable[[], Host], output: Callable[[], Path], test_after: Callable[[], bool] = lambda: False
    ) -> None:
        self._make_host, self._output, self._test_after = host, output, test_after
        self._host: Host | None = None
        self.record = Record()  # of the job at hand, or of the last one
        self._token = CancelToken()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._paused, self._wake = threading.Event(), threading.Event()
        self.line = Line(self)  # what is to be trained next
        self.looking = Looking()  # checks and copies, which need no model

    @property
    def host(self) -> Host:
        """Where the model lives."""
        with importing:  # a host imports much, and two threads must not make two
            if self._host is None:
                self._host = self._make_host()
        return self._host

    @property
    def output(self) -> Path:
        """The folder that holds the runs' folders."""
        return self._output()

    @property
    def running(self) -> bool:
        """Whether a job is at work."""
        return self._thread is not None and self._thread.is_alive()

    def status(self) -> dict[str, Any]:
        """What a page shows; answers at once."""
        return {**self.record.to_dict(), "queue": self.line.waiting(), "looking": self.looking.to_dict()}

    def start(self, values: Mapping[str, Any]) -> str:
        """Begin to train; ``values`` has name, dataset, config and, as wished, resume, overwrite, test, trigger.

        Returns:
            The job's id, also known to the host's own progress display.

        Raises:
            HostBusyError: if a job is at work.
            LoraTrainerError: if the request can't be carried out; one sentence.
        """
        return self.train(values).job

    def train(self, values: Mapping[str, Any], checkpoint: str = "") -> Record:
        """Begin to train, for somebody who waits for the end: gives the record.

        Args:
            checkpoint: it is meant for this one (a file name) and no other.
        """
        load()
        with self._starting:
            self._refuse_second(("queue",))
            whole, recorded = completed(values, self.output)
            request = train_request(whole, self.host, self.output)
            plan = test_plan_of(values, request.name, request.trigger)
            test = plan if self.wants_test(values) else None
            wanted = checkpoint or recorded
            return self._launch(request.name, lambda: self._train_and_test(request, test, wanted))

    def test(self, values: Mapping[str, Any]) -> str:
        """Begin to test a LoRA: ``values`` has its name as ``lora`` and, as wished, trigger, strengths, prompts, …;
        or ``resume``, to go on with a test of it that didn't come to its end, as that was asked for.

        Raises:
            HostBusyError: if a job is at work.
            LoraTrainerError: if there is no such LoRA or a value can't be used.
        """
        load()
        from lora_trainer.evaluation.plan import read_plan
        from lora_trainer.evaluation.unfinished import asked_before
        from lora_trainer.lora_folder import find_lora

        with self._starting:
            self._refuse_second()
            refuse_unknown(values, TEST_KEYS, "test")
            lora = find_lora(text_of(values, "lora", "the LoRA's name"), self.host.lora_dir)
            resume = flag_of(values, "resume") is True
            plan = read_plan(lora, asked_before(self.output / lora.stem) if resume else values)
            return self._launch(lora.stem, lambda: self._test(lora, plan, resume)).job

    def do(self, errand: Errand) -> str:
        """Begin something else that takes the model's turn, such as automatic captions.

        Raises:
            HostBusyError: if a job is at work.
        """
        with self._starting:
            self._refuse_second()
            return self._launch(errand.name, lambda: self._do(errand)).job

    def stop(self) -> bool:
        """Ask for the end; the training saves first. Whether there was something to stop."""
        running = self.running
        self._token.cancel()
        self._wake.set()
        return running

    def pause(self) -> bool:
        """Wait at the next step boundary and lend the model back meanwhile; whether there was something to pause."""
        if self.running:
            self._wake.clear()
            self._paused.set()
        return self.running

    def resume(self) -> bool:
        """Go on after :meth:`pause`; whether there was something to resume."""
        paused = self.running and self._paused.is_set()
        self._paused.clear()
        self._wake.set()
        return paused

    def wait(self, timeout: float | None = None) -> None:
        """Wait for the end of the job at work."""
        if self._thread is not None:
            self._thread.join(timeout)

    def close(self) -> None:
        """The program ends: what is being trained is saved first, and offered again when the next one begins."""
        trains = self.running
        self.line.close()
        self.stop()
        self.wait()
        self.line.wait()
        if trains and self.record.state == "stopped" and self.record.steps:
            with suppress(FileError):
                mark_interrupted(RunFolder(self.record.output, self.record.name))

    def check(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What there is to say about a dataset folder; decodes images, so not for an event loop.

        Raises:
            LoraTrainerError: if there is nothing to train on.
        """
        load()
        with self.looking.at_work("Looking at images") as seen:
            return check_dataset(values, self.output, seen)

    def _refuse_second(self, choices: tuple[str, ...] = ()) -> None:
        if self.running:
            now = self.record
            raise HostBusyError(f"{now.name} isn't finished ({now.message}); stop it, or wait until it is.", choices)

    def wants_test(self, values: Mapping[str, Any]) -> bool:
        """Whether a request asks for a test afterwards, or leaves that to the settings, which do."""
        wish = flag_of(values, "test")
        return self._test_after() if wish is None else wish

    def _launch(self, name: str, work: Callable[[], None]) -> Record:
        job = f"task(lora-trainer-{secrets.token_hex(4)})"
        self._token = CancelToken()
        self._paused.clear()
        self._wake.clear()
        self.record = Record(job=job, name=name, output=self.output, state="preparing", message="Waiting for the model")
        self._thread = threading.Thread(target=self._run, args=(work,), name="lora-trainer", daemon=True)
        self._thread.start()
        return self.record

    def _run(self, work: Callable[[], None]) -> None:
        """The thread: whatever happens ends in a state and a sentence."""
        record = self.record
        try:
            with self.host.working(record.job, self._token):
                work()
            if self._token.cancelled:
                record.enter("stopped", record.message + self.line.stopped())
            else:
                record.enter("done", record.message)
        except LoraTrainerError as error:
            log.info("%s: %s", record.name, error)
            record.fail(str(error), error)
        except BaseException as error:  # SystemExit, too: nobody is above this thread to see it
            log.exception("%s failed", record.name)
            record.fail(unexpected(error))

    def _train_and_test(self, request: RunRequest, test: dict[str, Any] | None, checkpoint: str) -> None:
        from lora_trainer.evaluation.plan import read_plan
        from lora_trainer.ui.result import publish_result

        loaded = self.host.glance()
        if checkpoint and loaded is not None and loaded.checkpoint != checkpoint:
            raise OtherCheckpointError(request.name, checkpoint, loaded.checkpoint)
        self._train(request)
        lora = self.host.lora_dir / f"{request.name}.safetensors"
        if self.record.step:
            publish_result(self.host, lora, self.record)
        if test is not None and not self._token.cancelled:
            self._test(lora, read_plan(lora, test))

    def _train(self, request: RunRequest) -> None:
        from lora_trainer.training.run import train

        events = train(self.host, request, self._token)
        lost: HostBusyError | None = None
        try:
            for event in events:
                self.record.take(event)
                if isinstance(event, Preparing) and self._token.cancelled:
                    self.record.enter("stopped", "Stopped before the first step; nothing was trained.")
                    break
                try:
                    self._boundary()
                except HostBusyError as error:  # the model is gone, but what was trained can be saved
                    lost = error
                    self._token.cancel()
        finally:
            events.close()  # type: ignore[attr-defined]  # gives the model back now, not when it is collected
        if lost is not None:
            raise lost

    def _test(self, lora: Path, plan: TestPlan, resume: bool = False) -> None:
        from lora_trainer.evaluation.events import TestedImage, TestFinished
        from lora_trainer.evaluation.sweep import test_lora
        from lora_trainer.ui.result import publish_result

        self.record.enter("testing", f"Testing {lora.name}")
        pictures: list[TestedImage] = []
        folder = self.record.output / lora.stem
        for event in test_lora(self.host, lora, plan, folder, self._token, resume=resume):
            self.record.take(event)
            if isinstance(event, TestedImage):
                pictures.append(event)
            if isinstance(event, TestFinished):
                publish_result(self.host, lora, self.record, event.report, pictures)
            self._boundary()

    def _do(self, errand: Errand) -> None:
        for stage in errand.stages(self.host, lambda: self._token.cancelled):
            self.record.show(stage)
            self._boundary()

    def _boundary(self) -> None:
        """Between two events: the host shows progress and serves others; a paused job waits here."""
        self.host.between_steps(self.record.progress)
        if not self._paused.is_set() or self._token.cancelled:
            return
        self.record.pause()
        with self.host.lent():
            while self._paused.is_set() and not self._token.cancelled:
                self._wake.wait(1.0)
        self.record.resume()
