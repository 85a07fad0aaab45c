"""One training run, from a dataset folder to LoRA files: takes the model, builds what the loop needs, gives it back."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from lora_trainer.dataset.checks.check import READY, check
from lora_trainer.errors import UnsupportedModelError
from lora_trainer.files import check_writable
from lora_trainer.hosts.base import Host
from lora_trainer.training.classes import check_paths
from lora_trainer.training.ending import recorded
from lora_trainer.training.events import CancelToken, Event, Notice, Saved
from lora_trainer.training.folder import RunFolder
from lora_trainer.training.lock import held
from lora_trainer.training.loop import training_loop
from lora_trainer.training.memory_plan.comparing import Comparison
from lora_trainer.training.memory_plan.planning import plan_memory
from lora_trainer.training.opening import open_session
from lora_trainer.training.processes import Processes
from lora_trainer.training.request import RunRequest, check_name
from lora_trainer.training.session import Session
from lora_trainer.training.shortage import begin_with_less
from lora_trainer.training.taken import check_taken
from lora_trainer.training.trackers import Trackers
from lora_trainer.training.watch.meter import Meter
from lora_trainer.training.watch.weights import broken_weights


def train(host: Host, request: RunRequest, token: CancelToken | None = None) -> Generator[Event, None, None]:
    """Train; the host has its model back, unchanged, at the end and whenever this generator is closed.

    At every event the model carries nothing of ours (see :func:`lora_trainer.training.loop.training_loop`).

    Raises:
        LoraTrainerError: in one sentence. Nothing is half-written then.
    """
    token = token or CancelToken()
    processes = Processes()
    told = check_paths(request.config, request.typed)
    folder = RunFolder(request.output, request.name)
    with ExitStack() as stack:
        processes.main_first(lambda: stack.enter_context(_claimed(request, host.lora_dir, folder)))
        yield from _train(host, request, token, folder, processes, told)


@contextmanager
def _claimed(request: RunRequest, lora_dir: Path, folder: RunFolder) -> Iterator[None]:
    """The name, for this run alone; what killed runs of this name left half written is gone."""
    check_name(request, lora_dir)  # a run that is refused leaves no folder
    folder.prepare()
    check_writable(lora_dir, "LoRA folder")
    with held(*folder.locks(lora_dir)):
        check_taken(folder, lora_dir, request.config.save, request.resume, request.overwrite)
        folder.sweep(lora_dir)
        yield


def _train(
    host: Host,
    request: RunRequest,
    token: CancelToken,
    folder: RunFolder,
    processes: Processes,
    told: list[str],
) -> Iterator[Event]:
    checked = check(
        request.dataset, request.config.dataset, request.config.caption, trigger=request.trigger, output=request.output
    )
    dataset = checked.dataset
    if processes.is_main:
        yield from (Notice(text) for text in [*told, *dataset.notices, *map(str, dataset.skipped)])
    with host.take(request.config.memory.mixed_precision) as model:
        if broken := broken_weights(model):
            raise UnsupportedModelError(broken)
        if model.apart and request.config.tunes_text:
            raise UnsupportedModelError(
                "With --medvram, UNet and text encoder are never in memory together; switch network_train_unet_only "
                "on, or start the WebUI without --medvram."
            )
        session = open_session(host, request, model, dataset, folder, processes)
        if processes.is_main:
            found = [f"Check of the images: {checked.readiness}"] if checked.readiness != READY else []
            yield from (Notice(text) for text in [*found, *session.news])
        written: list[Path] = []
        meter = Meter(model.device)
        with recorded(session, token):
            yield from plan_memory(session)
            yield from session.told(begin_with_less(session))
            for event in _encoded(session):
                yield event
                yield from meter.read()
                if token.cancelled and processes.world == 1:  # several must agree, which they do before the first step
                    break
            model.keep(session.feed.parts)
            if not token.cancelled:
                yield from session.told(session.learning.begin())
            comparison = Comparison(session)
            with (
                Trackers(session) as trackers,
                closing(training_loop(session, token)) as events,  # closed here, while the model is still ours
            ):
                for event in events:
                    if isinstance(event, Saved):
                        written.append(event.path)
                        host.refresh_loras([event.path])
                    if processes.is_main:
                        yield event
                        yield from comparison.read(event)
                        yield from session.told(trackers.read(event))
                        yield from meter.read()
    host.refresh_loras(written)


def _encoded(session: Session) -> Iterator[Event]:
    """Everything that the run can encode beforehand; one part of the model after the other is at work."""
    yield from session.feed.fill_images()
    yield from session.feed.fill_captions()
    yield from session.told(session.learning.encode())
