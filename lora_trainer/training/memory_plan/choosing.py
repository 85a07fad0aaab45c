"""The cheapest way to compute a step in the memory that there is: what is recomputed, how many images at once, how the
weights are held."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lora_trainer.training.memory_plan.counting import StepCost
from lora_trainer.training.memory_plan.storage import Storage

OWN = Storage()  # weights as the model has them


@dataclass(frozen=True)
class Setup:
    """How a step is computed."""

    recomputed: tuple[int, ...]  # blocks, numbered as the cost numbers them
    at_once: int  # images
    peak: int  # bytes above the weights, the LoRA and the optimiser
    work: float  # of a step's forward and backward pass, 1.0 where nothing is recomputed
    storage: Storage = OWN


def choose(
    cost: StepCost, batch: int, room: int | None, everything: bool = False, storages: Iterable[Storage] = (OWN,)
) -> Setup | None:
    """The set-up with the least extra work that takes at most ``room`` bytes; None if none does.

    Blocks are recomputed in the order of the memory that each frees for its work, no more of them than needed (the
    greedy solution of the knapsack; Chen et al. 2016 recompute all). Images are computed apart only after that: it
    costs nothing in work, but a card computes several at once faster. Only after that the weights are held in another
    way; where some of them are in CPU memory, as few as it takes with all the rest done.

    Args:
        batch: images of a step.
        room: bytes; None for as many as it takes.
        everything: whether all blocks are to be recomputed whatever the room is.
        storages: ways to hold the weights, the best first; ``room`` is beside the weights as the model has them.
    """
    ranked = sorted(range(len(cost.work)), key=lambda block: _freed(cost, block) / max(cost.work[block], 1))
    ranked.reverse()
    every = [tuple(ranked[:count]) for count in range(len(ranked) + 1)]
    for storage in storages:
        most = 1 if storage.last_resort else batch
        recomputations = every[-1:] if everything or storage.last_resort else every
        here = None if room is None else room + storage.saved
        found = _fewest(cost, most, here, recomputations, storage)
        if found is not None:
            return found
    return None


def _fewest(
    cost: StepCost, batch: int, room: int | None, recomputations: Sequence[tuple[int, ...]], storage: Storage
) -> Setup | None:
    """The first recomputation that fits; with the last of them, as many images at once as fit."""
    at_once = batch
    while at_once:
        for recomputed in recomputations[-1:] if at_once < batch else recomputations:
            peak = round(cost.peak(recomputed) * at_once / cost.images) + storage.passing(recomputed)
            if room is None or peak <= room:
                return Setup(tuple(sorted(recomputed)), at_once, peak, work(cost, recomputed), storage)
        at_once //= 2
    return None


def leanest(storages: Iterable[Storage], cost: StepCost) -> Storage:
    """The way to hold the weights that takes least memory where every block is recomputed."""
    return min(storages, key=lambda one: one.passing(range(len(cost.work))) - one.saved)


def work(cost: StepCost, recomputed: tuple[int, ...]) -> float:
    """Work of a step, by that of one without recomputation; a backward pass takes about twice its forward pass."""
    again = sum(cost.work[block] for block in recomputed)
    return 1 + again / max(3 * cost.all_work, 1)


def _freed(cost: StepCost, block: int) -> int:
    """Bytes that are gone between the passes if this block alone is recomputed."""
    return cost.held(()) - cost.held((block,))
