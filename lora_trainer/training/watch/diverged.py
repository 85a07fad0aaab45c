"""A training that has diverged: noticed, taken back to where all was well, and ended there or continued more slowly."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lora_trainer.dataset.batches import Batch
from lora_trainer.errors import LoraTrainerError, TrainingDivergedError, UnsupportedModelError
from lora_trainer.training.events import Before, Event, StepDone, Watched
from lora_trainer.training.folder import previous
from lora_trainer.training.state import apply_rates, load_state
from lora_trainer.training.watch.disk import EVERY, look_at_disk
from lora_trainer.training.watch.facts import Facts, Finding
from lora_trainer.training.watch.health import FAR
from lora_trainer.training.watch.weights import broken_weights

if TYPE_CHECKING:
    from lora_trainer.training.session import Session
    from lora_trainer.training.step import StepLoss

MARGIN = 5  # steps before the first bad one in which a training that diverges may be on its way already
LEAST_RATE = 1 / 16  # of the rates that were asked for; who still diverges then has another problem


def look(run: Session, done: StepDone, found: StepLoss, weights: float) -> Iterator[Event]:
    """Tell what the watch has noticed in this step.

    Raises:
        TrainingDivergedError: with the step until which all was well.
    """
    facts = Facts(
        done.step, done.loss, found.baseline, found.expected, done.grad_norm, weights, done.seconds, done.skipped
    )
    findings = [
        *(
            Finding("image", f"{name} was changed during the run.", "It is trained as it is now.")
            for name in run.feed.changed
        ),
        *_on_disk(run),
        *run.watch.look(facts),
    ]
    run.feed.changed.clear()
    for finding in findings:
        if finding.good is not None:
            raise TrainingDivergedError(finding.text, finding.good)
        run.tell(str(finding))
        if run.processes.is_main:
            yield Watched(str(finding), finding.kind)


def _on_disk(run: Session) -> Iterator[Finding]:
    """What to tell of the disk, once in a run."""
    if run.disk_told or not run.processes.is_main or run.position.step % EVERY != 1:
        return
    if finding := look_at_disk(run):
        run.disk_told = True
        yield finding


def not_finite(run: Session, group: Sequence[Batch], what: str, loss: float) -> LoraTrainerError:
    """The error for a step whose loss or gradient (``what``) is NaN or infinite; nothing of it was applied.

    Where the base model's loss is finite at the very same inputs, the steps before have spoilt the LoRA. Otherwise,
    and where only fp16 gradients overflow, the LoRA is as good as it was, and these inputs are to blame.
    """
    at = run.position.step
    if broken := broken_weights(run.model):
        return UnsupportedModelError(broken)
    base = run.base_loss_of(group)
    only_fp16 = run.update.scaler.is_enabled() and loss < FAR * base
    if at and math.isfinite(base) and not only_fp16:
        return TrainingDivergedError(
            f"The {what} became NaN or infinite in step {at + 1}, where the base model's loss is {base:.3g}: the "
            "training has diverged.",
            at - 1,
        )
    names = ", ".join(dict.fromkeys(run.dataset.items[sample.item].path.name for batch in group for sample in batch))
    begin = f"The {what} became NaN or infinite in step {at + 1} with {names}; "
    if not at:
        return TrainingDivergedError(
            f"{begin}nothing was trained yet. Use bf16 or fp32 instead of fp16, or leave these images out."
        )
    return TrainingDivergedError(
        f"{begin}everything up to step {at} is saved. Lower the learning rate, or use bf16 or fp32 instead of fp16, "
        "then resume."
    )


def check_weights(run: Session) -> None:
    """Look at the weights of the last step, which no loss will show any more.

    Raises:
        TrainingDivergedError: if one is NaN or infinite.
    """
    if not math.isfinite(run.update.weight_norm()):
        step = run.position.step
        raise TrainingDivergedError(
            f"The LoRA's weights became NaN or infinite in step {step}: the training has diverged.", step - 1
        )


def recover(run: Session, error: TrainingDivergedError) -> Iterator[Event]:
    """Take the run back to its last good state; from there it goes on with half the rate, if that was asked for.

    Raises:
        TrainingDivergedError: where the run ends here, with all that is good saved; says what to do.
    """
    if error.good is None:
        raise error
    _rewind(run, error.good)
    at, rate = run.position, max(run.update.scheduler.base_lrs)
    if run.config.optimizer.on_divergence == "go_back" and at.rate > LEAST_RATE and rate:
        _halve(run)
        run.save_state(wait=True)
        text = f"{error} It goes on from step {at.step}, with half the learning rate ({rate / 2:g})."
        run.tell(text)
        if run.processes.is_main:
            yield Watched(text, "loss")
        return
    run.finished = True
    problem = run.tried(run.saver.final) if at.step else ""
    yield from run.saver.events()
    kept = f"What was learned until step {at.step} is kept" if at.step else "Nothing that it learned is of use"
    again = "resume" if at.step else "resume, which begins anew"
    halved = f" The rate was halved {round(-math.log2(at.rate))} times." if at.rate < 1 else ""
    lower = f"lower the learning rate (it is {rate:g})" if rate else "choose another optimizer_type"
    raise TrainingDivergedError(f"{error}{halved} {kept}: {lower}, then {again}.{problem and ' ' + problem}") from error


def _rewind(run: Session, good: int) -> None:
    """Put everything back to the newest state from well before the first bad step; without any, to the beginning."""
    run.states.settle()
    run.processes.wait()
    position, path, rate, seen = run.start.copy(), None, run.position.rate, dict[str, Any]()
    for until in (good - MARGIN, good):
        run.network, run.update = run.fresh()
        with suppress(LoraTrainerError):
            loaded = load_state(run.folder.state, run.network, run.parts(), run.identity, until)
            position, path, seen = loaded.position, loaded.path, loaded.seen
            break
    else:
        run.network, run.update = run.fresh()
    _scale(run, rate / position.rate)
    position.rate = rate
    run.processes.wait()
    run.begin_at(position, seen)
    run.before = Before()
    if run.processes.is_main:
        if path is None:
            run.save_state(wait=True)
            previous(run.folder.state).unlink(missing_ok=True)
        elif path != run.folder.state:
            path.replace(run.folder.state)
        run.begin_folder()


def _halve(run: Session) -> None:
    run.position.rate /= 2
    _scale(run, 0.5)


def _scale(run: Session, share: float) -> None:
    """Multiply the rates of the whole schedule."""
    update = run.update
    rates = [float(group["lr"]) * share for group in update.optimizer.param_groups]
    apply_rates(update.optimizer, update.scheduler, rates, [base * share for base in update.scheduler.base_lrs])
