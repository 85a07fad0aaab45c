"""``queue``"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_trainer.cli.settings import read_settings, typed_paths
from lora_trainer.cli.terminal import complain, say, status_after, stop_on_signals
from lora_trainer.cli.train import Places, find_places, note_interrupted, open_host, train_and_tell
from lora_trainer.config import RunConfig, parse_assignments
from lora_trainer.errors import (
    ConfigError,
    DatasetError,
    FileError,
    LoraTrainerError,
    first_line,
    memory_problem,
)
from lora_trainer.runs.queue import Queue
from lora_trainer.runs.queued import Queued, begun
from lora_trainer.training.events import CancelToken

if TYPE_CHECKING:
    from lora_trainer.hosts.standalone.host import DiffusersHost


def run_list(args: argparse.Namespace) -> None:
    """What the queue holds."""
    content = Queue(args.output).read()
    if args.json:
        say(json.dumps(content.to_dict(), indent=2))
        return
    for entry in content.entries:
        say(entry.line)
    if not content.entries:
        say("The queue is empty.")
    elif content.waiting and content.held:
        say("The queue is held; 'queue start' goes on.")


def run_add(args: argparse.Namespace) -> None:
    """Add a training."""
    config, fields, notices = read_settings(args)
    places = find_places(args, fields)
    entry = Queue(places.output).add(_entry(args, Queued(0, "", "", {}), places, config))
    for line in notices:
        say(f"Note: {line}")
    say(f"Added: {entry.line}")


def run_edit(args: argparse.Namespace) -> None:
    """Change an entry."""
    queue = Queue(args.output or Path("output"))
    before = queue.read().get(args.id)
    if args.config or args.preset:
        config, _, _ = read_settings(argparse.Namespace(**{**vars(args), "resume": False}))
    else:
        config = RunConfig.from_dict(before.config).replace(**parse_assignments(args.set))
    fields = {
        "pretrained_model_name_or_path": before.places.get("checkpoint"), "train_data_dir": before.dataset,
        "output_name": before.name, "output_dir": before.places.get("lora_dir"), "vae": before.places.get("vae"),
    }  # fmt: skip
    places = find_places(args, fields)
    say(f"Changed: {queue.edit(_entry(args, before, places, config)).line}")


def run_remove(args: argparse.Namespace) -> None:
    """Take an entry out."""
    gone = Queue(args.output).remove(args.id)
    say(f"Removed: {gone.id}. {gone.name}")


def run_move(args: argparse.Namespace) -> None:
    """Change an entry's place."""
    Queue(args.output).move(args.id, args.to)
    run_list(args)


def run_hold(args: argparse.Namespace) -> None:
    """Begin no further entry."""
    waiting = len(Queue(args.output).hold().waiting)
    say(f"The queue is held, with {waiting} waiting; 'queue start' goes on.")


def run_start(args: argparse.Namespace) -> int:
    """Train what waits; the exit status."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("The queue trains in one process; start it without accelerate launch, or use train.")
    queue, shift = Queue(args.output), _Shift(args.output)
    with stop_on_signals(shift.token) as came, queue.at_work():
        queue.hold(False)
        while (entry := queue.take(_unfit)) is not None:
            say(f"Queue: {entry.id}. {entry.name}")
            with shift.told(queue, entry, came):
                shift.train(entry)
            if shift.token.cancelled:
                break
    waiting = len(queue.read().waiting)
    say(f"Queue: {shift.done} done, {shift.failed} failed, {waiting} waiting.")
    for one in queue.read().waiting:
        if one.why:
            say(one.line)
    return status_after(came) or int(shift.failed > 0)


class _Shift:
    """One ``queue start``: trains entries, and keeps the host from one to the next of the same checkpoint."""

    def __init__(self, output: Path) -> None:
        self.output, self.token = output, CancelToken()
        self.done = self.failed = 0
        self._host: tuple[object, DiffusersHost] | None = None

    def train(self, entry: Queued) -> None:
        """Train an entry, and test the result if asked to."""
        config = RunConfig.from_dict(entry.config)
        paths = {key: Path(path) for key, path in entry.places.items() if path}
        lora_dir = paths.get("lora_dir", self.output / "lora")
        places = Places(
            paths["checkpoint"], Path(entry.dataset), entry.name, self.output, lora_dir, paths.get("vae")
        )  # fmt: skip
        host = self._host_for(places, config)
        resume, overwrite = begun(self.output, entry)
        typed, trigger = frozenset(entry.typed), entry.trigger
        reader = train_and_tell(host, places, config, self.token, resume, overwrite, typed=typed, trigger=trigger)
        lora = reader.finished.path if reader.finished else None
        if entry.test and lora and not self.token.cancelled:
            from lora_trainer.cli.evaluate import test_and_tell
            from lora_trainer.evaluation.plan import read_plan

            plan = read_plan(lora, {**entry.test_plan, "trigger": trigger})
            test_and_tell(host, lora, self.output / entry.name, self.token, plan)

    def _host_for(self, places: Places, config: RunConfig) -> DiffusersHost:
        asked = (
            places.checkpoint, places.vae, places.lora_dir, config.loss.v_parameterization, config.caption.clip_skip,
            config.loss.zero_terminal_snr,
        )  # fmt: skip
        if self._host is None or self._host[0] != asked:
            self._host = None  # its memory is needed for the next one
            self._host = (asked, open_host(places, config))
        return self._host[1]

    @contextmanager
    def told(self, queue: Queue, entry: Queued, came: list[int]) -> Iterator[None]:
        """Write down what becomes of the entry; its failure is a line, and the next one's turn."""
        try:
            yield
        except KeyboardInterrupt:  # a second Ctrl-C
            self._stopped(queue, entry)
            raise
        except Exception as error:
            own = str(error) if isinstance(error, LoraTrainerError) else memory_problem(error)
            why = own or f"{type(error).__name__}: {first_line(error)}"
            complain(why)
            if self.token.cancelled:  # nobody reads our output any more
                self._stopped(queue, entry)
                raise
            self.failed += 1
            queue.ended(entry.id, "failed", why)
            return
        if status_after(came):  # the machine is switched off, or the terminal has gone
            queue.interrupted(entry.id)
            note_interrupted(self.output, entry.name)
        elif self.token.cancelled:
            self._stopped(queue, entry)
        else:
            self.done += 1
            queue.ended(entry.id, "done")

    def _stopped(self, queue: Queue, entry: Queued) -> None:
        queue.ended(entry.id, "stopped")
        if queue.read().waiting:
            queue.hold()
            say("The queue is held; 'queue start' goes on with the next one.")


def _unfit(entry: Queued) -> str:
    """Why an entry can't be trained from here: the WebUI queued it for the checkpoint that it had loaded."""
    if entry.places.get("checkpoint"):
        return ""
    return (
        f"It was queued in the WebUI for {entry.checkpoint or 'the loaded checkpoint'}; say where that file is: "
        f"queue edit {entry.id} --checkpoint FILE."
    )


def _entry(args: argparse.Namespace, before: Queued, places: Places, config: RunConfig) -> Queued:
    """The entry as it is asked for, everything looked at that can be wrong with it."""
    from lora_trainer.dataset.dataset_file import is_dataset_file
    from lora_trainer.training.classes import check_paths
    from lora_trainer.training.request import RunRequest, check_name

    typed = typed_paths(args) | frozenset(before.typed)
    resume, overwrite = begun(places.output, before)
    resume, overwrite = args.resume or resume, args.overwrite or overwrite
    dataset = places.dataset.absolute()
    for path, what in ((places.checkpoint, "checkpoint"), (places.vae, "VAE")):
        if path is not None and not path.is_file():
            raise FileError(f"There is no {what} {path}; check its path.")
    if not dataset.is_dir() and not is_dataset_file(dataset):
        raise DatasetError(f"The folder {dataset} doesn't exist; check its path.")
    check_name(RunRequest(places.name, dataset, config, places.output, resume, overwrite), places.lora_dir)
    check_paths(config, typed)
    paths: dict[str, Any] = {"checkpoint": places.checkpoint, "vae": places.vae, "lora_dir": places.lora_dir}
    return replace(
        before,
        name=places.name,
        dataset=str(dataset),
        config=config.to_dict(),
        test=(before.test or args.test) and not getattr(args, "no_test", False),
        resume=resume,
        overwrite=overwrite,
        interrupted=False,  # what that means now is in the two above
        checkpoint=places.checkpoint.name,
        places={key: str(path.absolute()) for key, path in paths.items() if path is not None},
        typed=tuple(sorted(typed)),
    )
