"""A run in progress: everything the loop uses, and what happens around its steps."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lora_trainer.config import RunConfig
from lora_trainer.config.network import FROM_ZERO
from lora_trainer.dataset.batches import Batch
from lora_trainer.dataset.items import Dataset
from lora_trainer.errors import LoraTrainerError
from lora_trainer.hosts.base import TakenModel
from lora_trainer.memory import no_more_than
from lora_trainer.network.network import LoraNetwork
from lora_trainer.training.checkpointing import checkpoint_blocks
from lora_trainer.training.events import Before, Event, Notice, Planned, StepDone
from lora_trainer.training.feed import Feed
from lora_trainer.training.folder import RunFolder
from lora_trainer.training.inputs import StepInputs
from lora_trainer.training.objective import Objective
from lora_trainer.training.optimizers import averaged_weights
from lora_trainer.training.precision import arithmetic, autocast
from lora_trainer.training.processes import Processes
from lora_trainer.training.sampling import Sampler
from lora_trainer.training.saver import Saver
from lora_trainer.training.seen import Less, recall, seen
from lora_trainer.training.state import Position, snapshot
from lora_trainer.training.state_file import StateWriter
from lora_trainer.training.step import StepLoss, Update, training_step
from lora_trainer.training.watch.baseline import Baseline
from lora_trainer.training.watch.health import PROVEN, Watch
from lora_trainer.training.watch.learning import Learning, worthwhile

log = logging.getLogger(__name__)

MOST_NOTICES = 100


@dataclass
class Session:
    """Made by :func:`lora_trainer.training.opening.open_session`; lives as long as the model is taken."""

    config: RunConfig
    seed: int
    model: TakenModel
    network: LoraNetwork
    dataset: Dataset
    feed: Feed
    objective: Objective
    update: Update
    processes: Processes
    folder: RunFolder
    saver: Saver
    sampler: Sampler
    steps: int
    epochs: int
    identity: dict[str, Any]
    fresh: Callable[[], tuple[LoraNetwork, Update]]  # as they were before the first step
    position: Position = field(default_factory=Position)
    start: Position = field(default_factory=Position)  # where it begins that isn't resumed
    notices: list[str] = field(default_factory=list)
    news: list[str] = field(default_factory=list)  # those of them that only the taken model could tell
    finished: bool = False
    first_step: int = 0  # where it began or goes on
    before: Before = field(default_factory=Before)
    replacing: bool = False  # another run's folder, which is left alone until there is something to put in its place
    facts: dict[str, Any] = field(default_factory=dict)  # run.json
    recomputed: list[nn.Module] = field(default_factory=list)  # blocks that run again in the backward pass
    at_once: int = 0  # images of a batch that are computed together; 0 for all
    less: Less = field(default_factory=Less)  # memory than it began with
    plan: Planned | None = None  # of the memory
    room: int | None = None  # bytes that a step may take, if that was planned
    torn: bool = False  # whether a step is half applied
    disk_told: bool = False  # that it will be full
    state_written: float = field(default_factory=time.monotonic)
    state_step: int = -PROVEN  # of the last state that was written
    states: StateWriter = field(init=False)
    baseline: Baseline = field(init=False)
    watch: Watch = field(init=False)
    learning: Learning = field(init=False)

    def __post_init__(self) -> None:
        self.states = StateWriter(self.folder.state)
        self.recomputed = self.model.blocks() if self.config.memory.gradient_checkpointing else []
        wanted = self.processes.is_main and worthwhile(self.config.save, self.steps, self.epochs)
        self.learning = Learning(self.model, self.feed, self.folder, self.config, wanted)
        self.begin_at(self.position)

    def begin_at(self, position: Position, before: Mapping[str, Any] | None = None) -> None:
        """Go on from here, with what was seen before."""
        self.position, self.first_step = position, position.step
        self.baseline = Baseline(self.steps, position.step)
        self.watch = Watch(from_zero=self.config.network.algo in FROM_ZERO)
        less = recall(before or {}, self.watch, self.baseline)
        self.less = less if self.less == Less() else self.less
        self.learning.over = 0  # saves in a row are those of one stretch

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.model.device

    @property
    def accumulation(self) -> int:
        """Batches per optimiser step."""
        return self.config.optimizer.gradient_accumulation_steps

    @property
    def images(self) -> int:
        """Distinct images."""
        return len({item.path for item in self.dataset.items})

    @contextmanager
    def computing(self, samples: Batch) -> Iterator[None]:
        """The LoRA's hooks, its dropout, recomputation and precision: on for as long as these images are computed."""
        self.network.begin_step(self.seed, self.position.step, samples=[sample.uid for sample in samples])
        texts = [encoder.module for encoder in self.model.text_encoders] if self.config.tunes_text else []
        with (
            no_more_than(self.device, self.room),
            self.model.weights.in_step(texts, arithmetic(self.config.memory.mixed_precision)),
            self.network,
            checkpoint_blocks(self.recomputed),
            autocast(self.device, self.config.memory.mixed_precision),
        ):
            yield

    def prepare(self, mine: Batch, epoch: int, step: int) -> StepInputs:
        """This process's part of a batch, on the model's device."""
        inputs = self.feed.inputs(mine, epoch, step)
        self.network.control.timesteps = inputs.timesteps
        return inputs

    def together(self, mine: Batch) -> Iterator[Batch]:
        """This process's part of a batch, in portions that are computed at once."""
        size = self.at_once or len(mine)
        for start in range(0, len(mine), max(1, size)):
            yield mine[start : start + size]

    def parts(self) -> dict[str, Any]:
        """What has a state besides the LoRA itself."""
        update = self.update
        parts = {"optimizer": update.optimizer, "scheduler": update.scheduler, "scaler": update.scaler}
        return parts if update.ema is None else {**parts, "ema": update.ema}

    @property
    def measures_baseline(self) -> bool:
        """Whether the next step is compared with the base model."""
        return self.baseline.due(self.position.step) or self.watch.suspicious

    def base_loss(self, inputs: StepInputs, mine: Batch) -> float:
        """Sum of the base model's losses at these very inputs. Inside the step's hooks, after its backward pass."""
        with torch.no_grad(), self.network.left_out():
            if self.config.tunes_text:  # the base model has its own idea of the captions
                context = self.feed.conditioning(mine, self.position.epoch, self.position.step)
                inputs = replace(inputs, conditioning=context)
            losses = training_step(self.model, inputs, self.objective).tolist()
        self.baseline.note(inputs.timesteps.tolist(), losses)
        return sum(losses)

    def base_loss_of(self, group: Sequence[Batch]) -> float:
        """The base model's mean loss of a step's images, outside of the step."""
        total = 0.0
        for batch in group:
            for mine in self.together(batch[self.processes.rank :: self.processes.world]):
                with self.computing(mine):
                    inputs = self.prepare(mine, self.position.epoch, self.position.step)
                    total += self.base_loss(inputs, mine) / len(batch)
        return self.processes.sum(total)[0] / len(group)

    def report(self, found: StepLoss, rates: dict[str, float], norm: float, seconds: float) -> StepDone:
        """The event of the step just done, also written to the log."""
        at, base = self.position, found.baseline
        done = StepDone(
            at.step, self.steps, at.epoch, found.loss, at.average, rates, norm, seconds,
            base if math.isfinite(base) else None, self.update.skipped,
        )  # fmt: skip
        if self.processes.is_main:
            if self.replacing:
                self.folder.forget()
                self.begin_folder()
            self.folder.append_log(done)
        return done

    def begin_folder(self) -> None:
        """Make the run's folder this run's."""
        self.replacing = False
        losses, baselines = self.folder.start_log(self.first_step)
        self.folder.write_run(self.facts)
        learned = self.folder.learned_until(self.first_step)
        if self.first_step:
            samples = self.sampler.present(self.folder.samples_until(self.first_step))
            self.before = Before(tuple(losses), self.saver.present(self.position), samples, tuple(baselines), learned)

    def after_step(self, epoch_ended: bool) -> Iterator[Event]:
        """Saves and samples that are due now; the last step's save is :meth:`finish`'s."""
        at, every = self.position, self.config.save
        last = at.step >= self.steps
        notices = len(self.notices)
        due = []
        if not last and epoch_ended and every.save_every_n_epochs and at.epoch % every.save_every_n_epochs == 0:
            due.append(self.saver.epoch)
        if not last and every.save_every_n_steps and at.step % every.save_every_n_steps == 0:
            due.append(self.saver.step)
        for problem in filter(None, map(self.tried, due)):
            self.tell(f"{problem} Training continues.")
        minutes = every.save_state_every_n_minutes
        wanted = due or (not last and minutes and time.monotonic() - self.state_written > 60 * minutes)
        if wanted and at.step >= self.state_step + PROVEN:
            self.save_state(epoch_ended)
        if self.processes.is_main:
            yield from self.saver.events()
            yield from map(Notice, self.notices[notices:])
        if due:
            yield from self.measure()
        yield from self.sample(epoch_ended=epoch_ended)

    def sample(self, *, first: bool = False, epoch_ended: bool = False) -> Iterator[Event]:
        """Sample images, if this is a moment for them; the other processes wait."""
        if not self.sampler.wanted(self.position.step, self.position.epoch, first, epoch_ended):
            return
        if self.processes.is_main:
            with averaged_weights(self.update.optimizer):
                events = list(self.sampler.make(self.model, self.network, self.position.step))
            yield from self.told(events)
        self.processes.wait()

    def measure(self) -> Iterator[Event]:
        """What was learned until now, and damaged; the other processes wait."""
        with averaged_weights(self.update.optimizer):
            events = list(self.learning.measure(self.network, self.position.step, self.position.epoch))
        yield from self.told(events)
        self.processes.wait()

    def told(self, events: Iterable[Event]) -> Iterator[Event]:
        """The events; notices among them are kept."""
        for event in events:
            if isinstance(event, Notice):
                self.tell(event.text)
            yield event

    def tell(self, text: str) -> None:
        """A line that the user should read, told once; of very many the first ones."""
        if text not in self.notices and len(self.notices) < MOST_NOTICES:
            self.notices.append(text)

    def save_state(self, epoch_ended: bool = False, wait: bool = False) -> None:
        """Write the resume state, beside the next steps unless told to wait; the end of an epoch is the next one's
        start.

        It is several times larger than the LoRA. Where the disk can't hold it, the run goes on without.
        """
        self.state_written, self.state_step = time.monotonic(), self.position.step
        if not self.processes.is_main:
            return
        try:
            at = self.position.copy(epoch_ended)
            noted = seen(self.watch, self.baseline, self.less)
            self.states.write(snapshot(self.network, self.parts(), at, self.identity, noted))
            if wait:
                self.states.wait()
        except Exception as error:
            self.tell(f"{_reason(error, self.folder.state)} The run can't be resumed.")

    def tried(self, save: Callable[[LoraNetwork, Position], Path]) -> str:
        """Write a LoRA file; why it couldn't be, if so. The training is worth more than any file."""
        try:
            with averaged_weights(self.update.optimizer):
                save(self.network, self.position)
            if self.update.ema is not None:
                with self.update.ema.in_place():
                    self.saver.ema(self.network, self.position)
        except Exception as error:
            return _reason(error, self.saver.path())
        return ""

    def close(self) -> None:
        """Until nothing is written any more."""
        try:
            self.states.wait()
        except Exception as error:
            log.warning("%s", _reason(error, self.folder.state))


def _reason(error: Exception, path: Path) -> str:
    """Why something couldn't be written."""
    if isinstance(error, LoraTrainerError):
        return str(error)
    log.debug("Writing %s failed", path, exc_info=error)
    text = " ".join(str(error).split())[:200]
    return f"Can't write {path}: {type(error).__name__}{f' ({text})' if text else ''}."
