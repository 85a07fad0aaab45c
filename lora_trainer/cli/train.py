"""``train``"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_trainer.cli.settings import given_or, read_settings, typed_paths
from lora_trainer.cli.terminal import (
    ProgressBar,
    duration,
    is_first_process,
    leave_stdout,
    say,
    status_after,
    stop_on_signals,
)
from lora_trainer.errors import ConfigError, FileError, LoraTrainerError, counted
from lora_trainer.training.events import (
    CancelToken,
    Event,
    Finished,
    Learned,
    Notice,
    Planned,
    Preparing,
    Sampled,
    Saved,
    Started,
    StepDone,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from lora_trainer.config import RunConfig
    from lora_trainer.hosts.standalone.host import DiffusersHost


@dataclass
class Reader:
    """Shows a run's events and remembers what the summary needs."""

    progress: ProgressBar = field(default_factory=ProgressBar)
    started: Started | None = None
    finished: Finished | None = None
    saved: list[Path] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    sample: Image | None = None  # the latest
    first_step: int = 0
    step_started: float = 0.0
    unread: bool = False  # nobody reads our output any more

    def read(self, events: Iterable[Event], token: CancelToken) -> None:
        """Follow a run to its end. If nobody reads our output any more, it is asked to save and end."""
        for event in events:
            if not self._showed(event):
                self.unread = True
                token.cancel()
        self.progress.clear()

    def _showed(self, event: Event) -> bool:
        """Show an event; False if there is nobody to read it: a closed pipe, or a terminal that has gone."""
        try:
            self.show(event)
        except OSError:
            leave_stdout()
            return False
        return True

    def show(self, event: Event) -> None:
        """One event."""
        if isinstance(event, Preparing):
            self.progress.update(event.what.capitalize(), event.done, event.total)
        elif isinstance(event, Started):
            self.started, self.first_step, self.step_started = event, event.step, time.monotonic()
            self.saved += event.before.saved
            resumed = f", from step {event.step}" if event.step else ""
            self.progress.note(
                f"Training {event.modules} modules ({event.parameters:,} parameters) on "
                f"{counted(event.images, 'image')}: {counted(event.steps, 'step')} in "
                f"{counted(event.epochs, 'epoch')}{resumed}"
            )
        elif isinstance(event, StepDone):
            pace = (time.monotonic() - self.step_started) / max(1, event.step - self.first_step)
            detail = f"epoch {event.epoch}  loss {event.average:.4f}  {pace:.2f} s/step"
            left = pace * (event.steps - event.step)
            self.progress.update(
                "Step", event.step, event.steps, f"{detail}  {duration(left)} left" if left else detail
            )
        elif isinstance(event, Saved):
            self.saved.append(event.path)
            if not event.final:
                self.progress.note(f"Saved {event.path}")
        elif isinstance(event, Learned):
            from lora_trainer.evaluation.learned import sentence

            self.progress.note(sentence(event))
        elif isinstance(event, Sampled):
            self.sample = event.image if event.step else None
            self.progress.note(f"Sample {event.path}")
        elif isinstance(event, Planned):
            self.progress.note(event.text)
        elif isinstance(event, Notice):
            self.notices.append(event.text)
            self.progress.note(f"Note: {event.text}")
        elif isinstance(event, Finished):
            self.finished = event
            for text in event.notices:
                if text not in self.notices:
                    self.show(Notice(text))

    def unread_end(self) -> str:
        """What became of a run whose output nobody reads."""
        end = self.finished
        if end is None or end.path is None:
            return "The output was closed, so the run stopped; nothing was trained."
        if not end.stopped:
            return f"The output was closed: all {end.steps} steps were done, and {end.path} is saved."
        how = f"stopped after step {end.step} of {end.steps}"
        return f"The output was closed: {how}, and {end.path} is saved; --resume continues from there."

    def summary(self, seconds: float) -> None:
        """What came of it."""
        if self.started is None or self.finished is None:
            return
        end = self.finished
        if end.path is None:
            say("Stopped before the first step; nothing was saved.")
            return
        steps = end.step - self.first_step
        if end.stopped:
            say(f"Stopped at step {end.step} of {end.steps}; everything is saved, and --resume continues from here.")
        else:
            say(f"Done: {counted(steps, 'step')} in {duration(seconds)}.")
        size = end.path.stat().st_size / 1e6 if end.path.is_file() else 0.0
        say(f"LoRA: {end.path} ({size:.1f} MB, {self.started.modules} modules)")
        others = [path.name for path in dict.fromkeys(self.saved) if path != end.path and path.is_file()]
        if others:
            say(f"Also saved: {', '.join(others)}")
        say(f"Images: {self.started.images} used, {self.started.skipped} skipped")
        if self.notices:
            say(f"Notes: {len(self.notices)} (see above)")


@dataclass(frozen=True)
class Places:
    """Where things come from and go to."""

    checkpoint: Path
    dataset: Path
    name: str
    output: Path
    lora_dir: Path
    vae: Path | None


def find_places(args: argparse.Namespace, fields: dict[str, Any]) -> Places:
    """From the command line, else from the configuration.

    Raises:
        ConfigError: names what is missing.
    """
    checkpoint = given_or(args.checkpoint, fields.get("pretrained_model_name_or_path"))
    dataset = given_or(args.dataset, fields.get("dataset_config") or fields.get("train_data_dir"))
    name = args.name or str(fields.get("output_name") or "")
    if checkpoint is None or dataset is None or not name:
        missing = {"--checkpoint": checkpoint, "--dataset": dataset, "--name": name}
        options = ", ".join(option for option, value in missing.items() if not value)
        raise ConfigError(f"{options} must be given; python -m lora_trainer train --help explains them.")
    output = args.output or Path("output")
    lora_dir = given_or(args.lora_dir, fields.get("output_dir")) or output / "lora"
    return Places(checkpoint, dataset, name, output, lora_dir, given_or(args.vae, fields.get("vae")))


def open_host(places: Places, config: RunConfig) -> DiffusersHost:
    """The stand-alone host on this process's device, set to make pictures as the settings train."""
    from lora_trainer.hosts.standalone.host import DiffusersHost
    from lora_trainer.training.processes import Processes

    v_prediction = config.loss.v_parameterization
    return DiffusersHost(
        places.checkpoint,
        places.lora_dir,
        device=Processes().device,
        vae=places.vae,
        prediction_type=None if v_prediction is None else "v_prediction" if v_prediction else "epsilon",
        clip_skip=config.caption.clip_skip,
        zero_terminal_snr=config.loss.zero_terminal_snr or None,
    )


def run_train(args: argparse.Namespace) -> int:
    """Train, and test the result if asked to; the exit status."""
    config, fields, notices = read_settings(args)
    places = find_places(args, fields)
    token = CancelToken()
    with stop_on_signals(token) as came:
        host = open_host(places, config)
        if fields:
            notices += _on_fields(fields, host)
        notices += _advised(host, config)
        reader = train_and_tell(host, places, config, token, args.resume, args.overwrite, notices, typed_paths(args))
        lora = reader.finished.path if reader.finished else None
        if args.test and lora and not token.cancelled and is_first_process():
            from lora_trainer.cli.evaluate import test_and_tell

            test_and_tell(host, lora, places.output / places.name, token)
    if status_after(came):
        note_interrupted(places.output, places.name)
    return status_after(came)


def note_interrupted(output: Path, name: str) -> None:
    """A signal that nobody typed ended the run: it is told from those that were stopped."""
    from lora_trainer.training.ending import mark_interrupted
    from lora_trainer.training.folder import RunFolder

    with suppress(FileError):
        mark_interrupted(RunFolder(output, name))


def _advised(host: DiffusersHost, config: RunConfig) -> list[str]:
    """What the checkpoint calls for, and how it would be set."""
    from lora_trainer.advice import advice
    from lora_trainer.cli.settings import shown

    lines = []
    for one in advice(host.glance(), config):
        given = " ".join(f"--set {name}={shown(value)}" for name, value in one.options.items())
        lines.append(f"{one.text} ({given})" if given else one.text)
    return lines


def _on_fields(fields: dict[str, Any], host: DiffusersHost) -> list[str]:
    from lora_trainer.kohya import notices_on_fields

    glance = host.glance()
    if glance is None or glance.refusal:
        return notices_on_fields(fields)
    return notices_on_fields(fields, glance.checkpoint, glance.family)


def train_and_tell(
    host: DiffusersHost,
    places: Places,
    config: RunConfig,
    token: CancelToken,
    resume: bool = False,
    overwrite: bool = False,
    notices: Iterable[str] = (),
    typed: frozenset[str] = frozenset(),
    trigger: str = "",
) -> Reader:
    """Train with progress on the terminal and a summary at the end."""
    from lora_trainer.cli import RunFailedError
    from lora_trainer.training.request import RunRequest
    from lora_trainer.training.run import train

    reader = Reader()
    started = time.monotonic()
    request = RunRequest(places.name, places.dataset, config, places.output, resume, overwrite, typed, trigger)
    try:
        with closing(train(host, request, token)) as events:  # whatever breaks us off, it saves first
            reader.read(chain(map(Notice, notices), events), token)
    except LoraTrainerError as error:
        reader.progress.clear()
        if reader.started is not None and type(error).__name__ != "TrainingDivergedError":
            raise RunFailedError(str(error)) from error
        raise
    told = _publish(reader, host)
    if reader.unread:
        raise RunFailedError(reader.unread_end())
    reader.summary(time.monotonic() - started)
    for notice in told:
        say(f"Note: {notice}")
    if reader.finished is not None and reader.finished.path:
        say(f"Log and resume state: {places.output / places.name}")
    return reader


def _publish(reader: Reader, host: DiffusersHost) -> Sequence[str]:
    """Write the card of what was trained; what the user should know of it."""
    from lora_trainer.evaluation.publish import publish

    if reader.finished is None or reader.finished.path is None or not is_first_process():
        return ()
    modules = reader.started.modules if reader.started else 0
    try:
        return tuple(publish(host, reader.finished.path, sample=reader.sample, modules=modules))
    except FileError as error:
        return (str(error),)
