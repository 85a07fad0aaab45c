"""The base model's loss at the very images, captions, noise and timesteps of a step: what the LoRA's is compared with.

How large a loss is depends on the timestep most of all, then on the image, and on what is learned least. The
difference of the two losses has none of the first two left: below zero, the LoRA predicts better than its base model.
It is exact and costs a forward pass without gradients (about a third of a step, a quarter where blocks are recomputed),
so it is measured in few steps: the first ten, then one of ``max(4, steps / 200)``, and those that look suspicious.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lora_trainer.training.watch.facts import UNKNOWN

FIRST = 10  # steps, each of which is measured: a rate that is far too high shows there
AT_MOST = 4  # every fourth step after that
POINTS = 200  # of a curve that is long enough
BINS, TIMESTEPS = 20, 1000


class Baseline:
    """Which steps are measured, and what was found at which timesteps.

    Args:
        steps: of the whole run.
        begin: steps done when it begins or goes on.
    """

    def __init__(self, steps: int, begin: int = 0) -> None:
        self.every = max(AT_MOST, math.ceil(steps / POINTS))
        self.begin = begin
        self._sums, self._counts = [0.0] * BINS, [0] * BINS

    def due(self, step: int) -> bool:
        """Whether the step after ``step`` steps is one to measure."""
        return step < self.begin + FIRST or step % self.every == 0

    def note(self, timesteps: Sequence[int], losses: Sequence[float]) -> None:
        """Remember the base model's losses of some images."""
        for timestep, loss in zip(timesteps, losses, strict=True):
            if math.isfinite(loss):
                self._sums[_bin(timestep)] += loss
                self._counts[_bin(timestep)] += 1

    def expected(self, timesteps: Sequence[int]) -> float:
        """The mean loss to expect of the base model; where nothing was measured, that of the nearest timesteps."""
        known = [n for n, count in enumerate(self._counts) if count]
        if not known:
            return UNKNOWN
        nearest = [min(known, key=lambda n: abs(n - _bin(timestep))) for timestep in timesteps]
        return sum(self._sums[n] / self._counts[n] for n in nearest) / len(nearest)

    def seen(self) -> dict[str, Any]:
        """What was found so far, as plain values."""
        return {"sums": list(self._sums), "counts": list(self._counts)}

    def recall(self, seen: dict[str, Any]) -> None:
        """Go on from what was found before.

        Raises:
            Exception: of any kind, if :meth:`seen` didn't make it.
        """
        sums, counts = list(map(float, seen["sums"])), list(map(int, seen["counts"]))
        if len(sums) != BINS or len(counts) != BINS:
            raise ValueError(len(sums))
        self._sums, self._counts = sums, counts


def _bin(timestep: int) -> int:
    return min(timestep * BINS // TIMESTEPS, BINS - 1)
