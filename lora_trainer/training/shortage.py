"""Out of memory in a step: it is computed once more with less, and so are all that follow.

Nothing of a step is applied before all its gradients are there, and its noise is a function of the seed; so the run is
the one that it would have been, had it begun with less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from lora_trainer.dataset.batches import Batch
from lora_trainer.errors import LoraTrainerError, memory_problem
from lora_trainer.memory import release
from lora_trainer.training.events import Notice
from lora_trainer.training.seen import Less
from lora_trainer.training.watch.facts import Finding

if TYPE_CHECKING:
    from lora_trainer.training.session import Session
    from lora_trainer.training.step import StepLoss


def begin_with_less(run: Session) -> Iterator[Notice]:
    """Apply what the run had gone to before it was interrupted, on top of what is planned now."""
    if run.less == Less():
        return
    if run.less.recomputes:
        run.recomputed = run.model.blocks()
    if run.less.at_once:
        run.at_once = min(run.at_once or run.less.at_once, run.less.at_once)
    images = f" and {run.at_once} of a batch's images at once" if run.less.at_once else ""
    yield Notice(
        f"This run has run out of memory before, so it goes on with gradient checkpointing{images}: slower, the same "
        "result."
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
        found = _with_less(run, max(map(len, group)))
        if found is None:
            side = "x".join(map(str, run.dataset.resolution))
            raise LoraTrainerError(
                f"There isn't enough memory for a step at {side} pixels, even with gradient checkpointing and one "
                "image at a time: use a smaller resolution or network_dim, train the UNet only, or close what else "
                "uses the memory."
            ) from error
    # The error is gone by now, and with it what its frames held of the step.
    run.update.drop_gradients()
    release(run.device)
    return found


def _with_less(run: Session, largest: int) -> Finding | None:
    """Take the next measure: recomputation first, which changes no bit, then fewer images at once."""
    at = f"There wasn't enough memory for step {run.position.step + 1}."
    blocks = run.model.blocks()
    if len(run.recomputed) < len(blocks):
        run.recomputed = blocks
        run.less = replace(run.less, recomputes=True)
        return Finding(
            "memory", at, "From here on it goes on with gradient checkpointing: somewhat slower, the same result."
        )
    together = min(run.at_once or largest, largest)
    if together == 1:
        return None
    run.at_once = together // 2
    run.less = Less(True, run.at_once)
    run.watch.new_pace()
    return Finding(
        "memory", at, f"From here on {run.at_once} of a batch's images are computed at once: slower, the same result."
    )
