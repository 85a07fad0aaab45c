"""How sure a mean is: intervals by drawing again from what was measured (Efron 1979, "Bootstrap methods")."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

ROUNDS = 400


@dataclass(frozen=True)
class Estimate:
    """A value with the bounds of its 95 % interval."""

    value: float
    low: float
    high: float


def bootstrap(samples: np.ndarray, value: Callable[[np.ndarray], float]) -> Estimate:
    """``value`` of the samples, and how it spreads when they are drawn anew with replacement.

    Args:
        samples: [N, …]; its first axis is what is drawn from: images, seeds or prompts. The same samples give the same
            interval.
    """
    rng = np.random.default_rng(0)
    values = [value(samples[rng.integers(0, len(samples), len(samples))]) for _ in range(ROUNDS)]
    low, high = np.quantile(values, (0.025, 0.975))
    return Estimate(value(samples), float(low), float(high))
