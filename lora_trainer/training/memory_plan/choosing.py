"""The cheapest way to compute a step in the memory that there is: what is recomputed, how many images at once."""

from __future__ import annotations

from dataclasses import dataclass

from lora_trainer.training.memory_plan.counting import StepCost


@dataclass(frozen=True)
class Setup:
    """How a step is computed."""

    recomputed: tuple[int, ...]  # blocks, numbered as the cost numbers them
    at_once: int  # images
    peak: int  # bytes above the weights, the LoRA and the optimiser
    work: float  # of a step's forward and backward pass, 1.0 where nothing is recomputed


def choose(cost: StepCost, batch: int, room: int | None, everything: bool = False) -> Setup | None:
    """The set-up with the least extra work that takes at most ``room`` bytes; None if none does.

    Blocks are recomputed in the order of the memory that each frees for its work, no more of them than needed (the
    greedy solution of the knapsack; Chen et al. 2016 recompute all). Images are computed apart only after that: it
    costs nothing in work, but a card computes several at once faster.

    Args:
        batch: images of a step.
        room: bytes; None for as many as it takes.
        everything: whether all blocks are to be recomputed whatever the room is.
    """
    ranked = sorted(range(len(cost.work)), key=lambda block: _freed(cost, block) / max(cost.work[block], 1))
    ranked.reverse()
    every = [tuple(ranked[:count]) for count in range(len(ranked) + 1)]
    at_once = batch
    while at_once:
        for recomputed in every[-1:] if everything or at_once < batch else every:
            peak = round(cost.peak(recomputed) * at_once / cost.images)
            if room is None or peak <= room:
                return Setup(tuple(sorted(recomputed)), at_once, peak, work(cost, recomputed))
        at_once //= 2
    return None


def work(cost: StepCost, recomputed: tuple[int, ...]) -> float:
    """Work of a step, by that of one without recomputation; a backward pass takes about twice its forward pass."""
    again = sum(cost.work[block] for block in recomputed)
    return 1 + again / max(3 * cost.all_work, 1)


def _freed(cost: StepCost, block: int) -> int:
    """Bytes that are gone between the passes if this block alone is recomputed."""
    return cost.held(()) - cost.held((block,))
