"""Out of memory in a step: it is computed once more with less, and so are all that follow.

Nothing of a step is applied before all its gradients are there, and its noise is a function of the seed; so the run is
the one that it would have been, had it begun with less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from lora_trainer.dataset.batches import Batch
from lora_trainer.errors import LoraTrainerError, counted, memory_problem
from lora_trainer.memory import has_own_memory, release
from lora_trainer.training.events import Notice
from lora_trainer.training.memory_plan.remedies import switched_off
from lora_trainer.training.seen import Less
from lora_trainer.training.watch.facts import Finding

if TYPE_CHECKING:
    from lora_trainer.training.session import Session
    from lora_trainer.training.step import StepLoss


def begin_with_less(run: Session) -> Iterator[Notice]:
    """Apply what the run had gone to before it was interrupted, on top of what is planned now."""
    if run.less == Less():
        return
    memory = run.config.memory  # the settings may be others by now
    run.less = less = replace(
        run.less,
        in_8_bits=run.less.in_8_bits and memory.base_8bit != "never",
        in_cpu=run.less.in_cpu and memory.blocks_in_cpu_memory < 0,
    )
    if less.recomputes:
        run.recomputed = run.model.blocks()
    if less.at_once:
        run.at_once = min(run.at_once or less.at_once, less.at_once)
    weights, blocks = run.model.weights, run.model.blocks()
    if less.in_8_bits or less.in_cpu:
        run.model.hold(blocks if less.in_8_bits else weights.in_8_bits, blocks if less.in_cpu else weights.in_cpu)
    images = f" and {run.at_once} of a batch's images at once" if less.at_once else ""
    held = ", weights in 8 bits" * less.in_8_bits + ", blocks in CPU memory" * less.in_cpu
    result = "nearly the same result" if less.in_8_bits else "the same result"
    yield Notice(
        f"This run has run out of memory before, so it goes on with gradient checkpointing{images}{held}: slower, "
        f"{result}."
    )


def fitted(
    run: Session, group: Sequence[Batch], compute: Callable[[Session, Sequence[Batch]], StepLoss]
) -> StepLoss | Finding:
    """A step's gradients; or, where memory ran out, what was done about it: the step is to be computed once more.

    Raises:
        LoraTrainerError: where nothing is left to do.
        Exception: whatever else ``compute`` raises; out of memory, too, where several processes would have to agree.
    """
    try:
        return compute(run, group)
    except Exception as error:
        if not memory_problem(error) or run.processes.world > 1:
            raise
        less = _less(run, max(map(len, group)))
        if less is None:
            side = "x".join(map(str, run.dataset.resolution))
            raise LoraTrainerError(
                f"There isn't enough memory for a step at {side} pixels, even with gradient checkpointing and one "
                f"image at a time: {_unused(run)}use a smaller resolution or network_dim, train the UNet only, or "
                "close what else uses the memory."
            ) from error
    # The error is gone by now, and with it what its frames held of the step.
    run.update.drop_gradients()
    release(run.device)
    run.watch.new_pace()
    return Finding("memory", f"There wasn't enough memory for step {run.position.step + 1}.", less())


def _less(run: Session, largest: int) -> Callable[[], str] | None:
    """The next measure: recomputation first, which changes no bit, then fewer images at once, then weights held in
    another way. It says what it did; None where nothing is left."""
    if len(run.recomputed) < len(run.model.blocks()):
        return partial(_recompute, run)
    together = min(run.at_once or largest, largest)
    if together > 1:
        return partial(_apart, run, together // 2)
    if not has_own_memory(run.device):
        return None
    memory, weights = run.config.memory, run.model.weights
    if memory.base_8bit == "auto" and not weights.in_8_bits:
        return partial(_in_8_bits, run)
    if memory.blocks_in_cpu_memory < 0 and len(weights.in_cpu) < len(run.model.blocks()):
        return partial(_in_cpu, run)
    return None


def _unused(run: Session) -> str:
    """What the settings switch off, for the sentence that says that nothing is left."""
    off = switched_off(run.config.memory) if has_own_memory(run.device) else ()
    return "".join(f"{change}, " for change, _ in off)


def _recompute(run: Session) -> str:
    run.recomputed = run.model.blocks()
    run.less = replace(run.less, recomputes=True)
    return "From here on it goes on with gradient checkpointing: somewhat slower, the same result."


def _apart(run: Session, images: int) -> str:
    run.at_once = images
    run.less = replace(run.less, recomputes=True, at_once=images)
    return f"From here on a batch is computed {counted(images, 'image')} at a time: slower, the same result."


def _in_8_bits(run: Session) -> str:
    run.model.hold(run.model.blocks(), run.model.weights.in_cpu)
    run.less = replace(run.less, recomputes=True, in_8_bits=True)
    return "From here on the weights of the UNet's blocks are held in 8 bits: somewhat slower, nearly the same result."


def _in_cpu(run: Session) -> str:
    run.model.hold(run.model.weights.in_8_bits, run.model.blocks())
    run.less = replace(run.less, recomputes=True, in_cpu=True)
    return "From here on the weights of the UNet's blocks stay in CPU memory: slower, the same result."
