"""The training loop. It reads top to bottom; everything it uses was made in :mod:`lora_trainer.training.run`."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

from lora_trainer.dataset.batches import plan_epoch
from lora_trainer.training.diagnosis import not_finite
from lora_trainer.training.events import CancelToken, Event, Notice, Started
from lora_trainer.training.step import training_step

if TYPE_CHECKING:
    from lora_trainer.training.session import Session

log = logging.getLogger(__name__)


def training_loop(run: Session, token: CancelToken) -> Generator[Event, None, None]:
    """Train until the last step or until the token is cancelled; at every event the model is the host's.

    The LoRA's hooks and the recomputation are on only while a step is computed. Whoever reads the events may therefore
    pause, generate with the model, or close this generator between any two of them. Whatever ends it before its time
    (NaN, memory, an image that vanished, Ctrl-C, a reader that gives up), what was trained so far is saved and told.

    Raises:
        TrainingDivergedError: loss or gradients are NaN or infinite; they weren't applied.
        UnsupportedModelError: they are, because the base model's weights are.
    """
    try:
        yield from _steps(run, token)
    except GeneratorExit:  # nobody listens any more
        for event in run.rescue():
            if isinstance(event, Notice):
                log.warning(event.text)
        raise
    except BaseException:
        yield from run.rescue()
        raise


def _steps(run: Session, token: CancelToken) -> Iterator[Event]:
    at, config, processes, update = run.position, run.config, run.processes, run.update
    trained = sum(parameter.numel() for parameter in update.parameters)
    skipped = len(run.dataset.skipped)
    yield Started(at.step, run.steps, run.epochs, run.images, len(run.network.modules), trained, skipped, run.before)
    if at.step == 0 and not token.cancelled:
        yield from run.sample(first=True)
    stopped = False
    while at.step < run.steps and not stopped:
        batches = plan_epoch(run.dataset, run.global_batch, run.seed, at.epoch)
        groups = run.feed.groups_per_epoch
        while at.group < groups and at.step < run.steps:
            if stopped := processes.sum(float(token.cancelled))[0] > 0:
                break
            started, loss = time.perf_counter(), 0.0
            group = batches[at.group * run.accumulation : (at.group + 1) * run.accumulation]
            for batch in group:
                mine = batch[processes.rank :: processes.world]
                if not mine:
                    continue  # the last batch of a bucket may be smaller than the number of processes
                with run.computing(mine):
                    losses = training_step(run.model, run.prepare(mine, at.epoch, at.step), run.objective)
                    # kohya divides a partial group by all of it
                    loss += update.backward(losses, len(batch) * run.accumulation) / len(batch)
            processes.sum_gradients(update.parameters)
            loss = processes.sum(loss)[0] / len(group)
            if not math.isfinite(loss):
                raise not_finite(run, group, "loss")
            norm = update.clip()
            if not math.isfinite(norm) and update.overflow_is_final:
                raise not_finite(run, group, "gradient")
            with token.whole():
                run.torn = True
                rates = update.apply()
                if config.network.scale_weight_norms:
                    run.network.scale_weight_norms(config.network.scale_weight_norms)
                at.record(loss)
                run.torn = False
                done = run.report(loss, rates, norm, time.perf_counter() - started)
            yield done
            yield from run.after_step(epoch_ended=at.group == groups)
        if at.group == groups and at.step < run.steps:
            at.epoch, at.group = at.epoch + 1, 0
    yield from run.finish(stopped)
