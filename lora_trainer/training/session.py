"""A run in progress: everything the loop uses, and what happens around its steps."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lora_trainer.config import RunConfig
from lora_trainer.dataset.batches import Batch
from lora_trainer.dataset.items import Dataset
from lora_trainer.errors import FileError, LoraTrainerError
from lora_trainer.hosts.base import TakenModel
from lora_trainer.network.network import LoraNetwork
from lora_trainer.training.checkpointing import checkpoint_blocks
from lora_trainer.training.events import Before, Event, Finished, Notice, StepDone
from lora_trainer.training.feed import Feed
from lora_trainer.training.folder import RunFolder
from lora_trainer.training.inputs import StepInputs
from lora_trainer.training.objective import Objective
from lora_trainer.training.optimizers import averaged_weights
from lora_trainer.training.precision import autocast
from lora_trainer.training.processes import Processes
from lora_trainer.training.sampling import Sampler
from lora_trainer.training.saver import Saver
from lora_trainer.training.state import Position, save_state
from lora_trainer.training.step import Update

log = logging.getLogger(__name__)


@dataclass
class Session:
    """Made by :func:`lora_trainer.training.run.train`; lives as long as the model is taken."""

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
    position: Position = field(default_factory=Position)
    notices: list[str] = field(default_factory=list)
    news: list[str] = field(default_factory=list)  # those of them that only the taken model could tell
    finished: bool = False
    first_step: int = 0  # where it began or goes on
    before: Before = field(default_factory=Before)
    replacing: bool = False  # another run's folder, which is left alone until there is something to put in its place
    facts: dict[str, Any] = field(default_factory=dict)  # run.json
    torn: bool = False  # whether a step is half applied
    state_written: float = field(default_factory=time.monotonic)

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.model.device

    @property
    def accumulation(self) -> int:
        """Batches per optimiser step."""
        return self.config.optimizer.gradient_accumulation_steps

    @property
    def global_batch(self) -> int:
        """Images per batch over all processes."""
        return self.config.dataset.train_batch_size * self.processes.world

    @property
    def images(self) -> int:
        """Distinct images."""
        return len(self.dataset.items)

    @cached_property
    def recomputed(self) -> list[nn.Module]:
        """Blocks that run again in the backward pass instead of keeping their activations."""
        return self.model.blocks() if self.config.memory.gradient_checkpointing else []

    @contextmanager
    def computing(self, samples: Batch) -> Iterator[None]:
        """The LoRA's hooks, its dropout, recomputation and precision: on for as long as these images are computed."""
        self.network.begin_step(self.seed, self.position.step, samples=[sample.uid for sample in samples])
        with (
            self.network,
            checkpoint_blocks(self.recomputed),
            autocast(self.device, self.config.memory.mixed_precision),
        ):
            yield

    def prepare(self, mine: Batch, epoch: int, step: int) -> StepInputs:
        """This process's part of a batch, on the model's device."""
        return self.feed.inputs(mine, epoch, step)

    def parts(self) -> dict[str, Any]:
        """What has a state besides the LoRA itself."""
        update = self.update
        return {"optimizer": update.optimizer, "scheduler": update.scheduler, "scaler": update.scaler}

    def report(self, loss: float, rates: dict[str, float], norm: float, seconds: float) -> StepDone:
        """The event of the step just done, also written to the log."""
        at = self.position
        done = StepDone(at.step, self.steps, at.epoch, loss, at.average, rates, norm, seconds)
        if self.processes.is_main:
            if self.replacing:
                self.folder.forget()
                self.begin_folder()
            self.folder.append_log(done)
        return done

    def begin_folder(self) -> None:
        """Make the run's folder this run's."""
        self.replacing = False
        losses = self.folder.start_log(self.first_step)
        self.folder.write_run(self.facts)
        if self.first_step:
            samples = self.sampler.present(self.folder.samples_until(self.first_step))
            self.before = Before(tuple(losses), self.saver.present(self.position), samples)

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
        self.notices += [f"{problem} Training continues." for save in due if (problem := self._tried(save))]
        minutes = every.save_state_every_n_minutes
        if due or (not last and minutes and time.monotonic() - self.state_written > 60 * minutes):
            self.save_state(epoch_ended)
        if self.processes.is_main:
            yield from self.saver.events()
            yield from map(Notice, self.notices[notices:])
        yield from self.sample(epoch_ended=epoch_ended)

    def sample(self, *, first: bool = False, epoch_ended: bool = False) -> Iterator[Event]:
        """Sample images, if this is a moment for them; the other processes wait."""
        if not self.sampler.wanted(self.position.step, self.position.epoch, first, epoch_ended):
            return
        if self.processes.is_main:
            with averaged_weights(self.update.optimizer):
                events = list(self.sampler.make(self.model, self.network, self.position.step))
            self.notices += [event.text for event in events if isinstance(event, Notice)]
            yield from events
        self.processes.wait()

    def save_state(self, epoch_ended: bool = False) -> None:
        """Write the resume state; at the end of an epoch it points to the start of the next one.

        It is several times larger than the LoRA. Where the disk can't hold it, the run goes on without.
        """
        self.state_written = time.monotonic()
        if not self.processes.is_main:
            return
        at = self.position
        if epoch_ended:
            at = Position(at.epoch + 1, 0, at.step, list(at.losses), list(at.saved))
        try:
            save_state(self.folder.state, self.network, self.parts(), at, self.identity)
        except Exception as error:
            self.notices.append(f"{_reason(error, self.folder.state)} The run can't be resumed.")

    def _tried(self, save: Callable[[LoraNetwork, Position], Path]) -> str:
        """Write a LoRA file; why it couldn't be, if so. The training is worth more than any file."""
        try:
            with averaged_weights(self.update.optimizer):
                save(self.network, self.position)
        except Exception as error:
            return _reason(error, self.saver.path())
        return ""

    def rescue(self) -> list[Event]:
        """Save what was trained so far, whatever has happened; the reason for it is told by somebody else."""
        at = self.position
        if self.finished or at.step == self.first_step:
            return []
        self.finished = True
        self.update.drop_gradients()
        notices = len(self.notices)
        problem = self._tried(self.saver.final)
        kept = self.torn and self.folder.has_state  # an earlier state is better than one with half a step in it
        if not kept:
            self.save_state(epoch_ended=at.group >= self.feed.groups_per_epoch)
        if not self.processes.is_main:
            return []
        resumable = " The run can be resumed." if kept or len(self.notices) == notices else ""
        told = problem or f"What was trained until step {at.step} is saved as {self.saver.path()}."
        self.notices.append(told + resumable)
        return [*self.saver.events(), *map(Notice, self.notices[notices:])]

    def finish(self, stopped: bool) -> Iterator[Event]:
        """The last save and the closing event. Before the first step there is nothing to save, and a file to lose.

        Raises:
            FileError: if the LoRA can't be written; the state is, if it can be.
        """
        at = self.position
        if at.step == 0:
            yield Finished(None, 0, self.steps, stopped, tuple(self.notices))
            return
        notices = len(self.notices)
        problem = self._tried(self.saver.final)
        self.save_state(epoch_ended=at.group >= self.feed.groups_per_epoch)
        self.finished = True
        if problem:
            resumable = f"Everything up to step {at.step} is in {self.folder.state}: resume to get the file."
            raise FileError(" ".join([problem, *(self.notices[notices:] or [resumable])]))
        if self.processes.is_main:
            yield from self.saver.events()
        yield Finished(self.saver.path(), at.step, self.steps, stopped, tuple(self.notices))


def _reason(error: Exception, path: Path) -> str:
    """Why something couldn't be written."""
    if isinstance(error, LoraTrainerError):
        return str(error)
    log.debug("Writing %s failed", path, exc_info=error)
    text = " ".join(str(error).split())[:200]
    return f"Can't write {path}: {type(error).__name__}{f' ({text})' if text else ''}."
