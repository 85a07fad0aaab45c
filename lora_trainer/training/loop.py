"""The training loop. It reads top to bottom; everything it uses was made in :mod:`lora_trainer.training.opening`."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING

from lora_trainer.dataset.batches import Batch, plan_epoch
from lora_trainer.errors import TrainingDivergedError
from lora_trainer.training.events import CancelToken, Event, Notice, Started, Watched
from lora_trainer.training.finish import finish, rescue
from lora_trainer.training.preservation import preserve
from lora_trainer.training.shortage import fitted
from lora_trainer.training.step import StepLoss, training_step
from lora_trainer.training.watch.diverged import check_weights, look, not_finite, recover
from lora_trainer.training.watch.facts import Finding

if TYPE_CHECKING:
    from lora_trainer.training.session import Session

log = logging.getLogger(__name__)


def training_loop(run: Session, token: CancelToken) -> Generator[Event, None, None]:
    """Train until the last step or until the token is cancelled; at every event the model is the host's.

    The LoRA's hooks and the recomputation are on only while a step is computed. Whoever reads the events may therefore
    pause, generate with the model, or close this generator between any two of them. A training that diverges is taken
    back to its last good state, where it goes on or ends, as ``on_divergence`` says. Whatever ends it before its time
    (NaN, memory, an image that vanished, Ctrl-C, a reader that gives up), what was trained so far is saved and told.

    Raises:
        TrainingDivergedError: loss or gradients are NaN or infinite, or far from the base model's.
        UnsupportedModelError: they are, because the base model's weights are.
    """
    try:
        while not run.finished:
            yield from _stretch(run, token)
    except GeneratorExit:  # nobody listens any more
        for event in rescue(run):
            if isinstance(event, Notice):
                log.warning(event.text)
        raise
    except BaseException:
        yield from rescue(run)
        raise
    finally:
        run.close()


def _stretch(run: Session, token: CancelToken) -> Iterator[Event]:
    """Steps until the run ends, or until it has been taken back."""
    try:
        yield from _steps(run, token)
    except TrainingDivergedError as error:
        yield from recover(run, error)


def _steps(run: Session, token: CancelToken) -> Iterator[Event]:
    at, config, processes, update = run.position, run.config, run.processes, run.update
    trained = sum(parameter.numel() for parameter in update.parameters)
    skipped = len(run.dataset.skipped)
    yield Started(at.step, run.steps, run.epochs, run.images, run.network.count, trained, skipped, run.before)
    if at.step == 0 and not token.cancelled:
        yield from run.sample(first=True)
    stopped = False
    while at.step < run.steps and not stopped:
        batches = plan_epoch(run.dataset, processes.world, run.seed, at.epoch)
        groups = run.feed.groups_per_epoch
        while at.group < groups and at.step < run.steps:
            if stopped := processes.sum(float(token.cancelled or run.learning.damaged))[0] > 0:
                break
            started = time.perf_counter()
            group = batches[at.group * run.accumulation : (at.group + 1) * run.accumulation]
            found = fitted(run, group, _gradients)
            if isinstance(found, Finding):
                run.tell(str(found))
                yield Watched(str(found), found.kind)
                continue
            if not math.isfinite(found.loss):
                raise not_finite(run, group, "loss", found.loss)
            norm, weights = update.clip(), update.weight_norm()
            if not math.isfinite(norm) and update.overflow_is_final:
                raise not_finite(run, group, "gradient", found.loss)
            with token.whole():
                run.torn = True
                rates = update.apply()
                if config.network.scale_weight_norms:
                    run.network.scale_weight_norms(config.network.scale_weight_norms)
                update.round(at.step + 1)
                update.average()
                at.record(found.loss)
                run.torn = False
                done = run.report(found, rates, norm, time.perf_counter() - started)
            yield done
            yield from look(run, done, found, weights)
            yield from run.after_step(epoch_ended=at.group == groups)
        if at.group == groups and at.step < run.steps:
            at.epoch, at.group = at.epoch + 1, 0
    check_weights(run)
    yield from finish(run, stopped)


def _gradients(run: Session, group: Sequence[Batch]) -> StepLoss:
    """The gradients of one optimiser step's batches, added up over all processes, and the mean of their losses."""
    at, update, processes = run.position, run.update, run.processes
    measured, total = run.measures_baseline, [0.0, 0.0, 0.0]
    for batch in group:
        # nothing, if the last batch of a bucket is smaller than the number of processes
        for mine in run.together(batch[processes.rank :: processes.world]):
            with run.computing(mine):
                inputs = run.prepare(mine, at.epoch, at.step)
                losses = training_step(run.model, inputs, run.objective)
                # kohya divides a partial group by all of it
                loss = update.backward(losses, len(batch) * run.accumulation)
                preserve(run, inputs, mine, len(batch) * run.accumulation)
                base = run.base_loss(inputs, mine) if measured else math.nan
            expected = run.baseline.expected(inputs.timesteps.tolist()) * len(mine)
            total = [so_far + one / len(batch) for so_far, one in zip(total, (loss, base, expected), strict=True)]
    processes.sum_gradients(update.parameters)
    return StepLoss(*(mean / len(group) for mean in processes.sum(*total)))
