"""From measures to three figures of 0 to 100, each with the parts that it is made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from lora_trainer.evaluation import limits
from lora_trainer.evaluation.looking import Look
from lora_trainer.evaluation.measuring import Cell
from lora_trainer.measures.interval import Estimate

LIKENESS_RANGE = (-1.0, 2.0)  # beyond it more likeness says no more


@dataclass(frozen=True)
class Scores:
    """A file at a strength; ``parts`` has what was measured, by name. What wasn't is None."""

    accuracy: Estimate | None
    flexibility: Estimate
    artifacts: Estimate | None
    parts: dict[str, float]


def scores(cell: Cell, look: Look | None) -> Scores:
    """The figures of a cell, and of its pictures if there are some.

    accuracy: the share of pictures that a judge who knows the subject would count as right.
    flexibility: the share of facts that known things keep without the trigger.
    artifacts: how far pictures are from noise and from burnt colours; higher is cleaner.
    """
    parts = {"drift": cell.drift.value, "harm": cell.harm.value, "weights": cell.weights}
    if cell.gain is not None:
        parts["gain"] = cell.gain.value
    if look is not None:
        parts["loudness"] = look.loudness
        if look.variety is not None:
            parts["variety"] = look.variety
        if look.likeness is not None:
            parts["likeness"] = look.likeness.value
    return Scores(
        _accuracy(cell, look), _through(cell.drift, integrity), _artifacts(cell, look),
        {name: round(value, 4) for name, value in parts.items()},
    )  # fmt: skip


def accuracy(gain: float, likeness: float | None = None) -> float:
    """Expected share of right pictures, 0…1."""
    if likeness is None:
        first, second = limits.ACCURACY_BY_GAIN
        return _logistic(first + second * gain)
    low, high = LIKENESS_RANGE
    first, second, third = limits.ACCURACY_BY_BOTH
    return _logistic(first + second * gain + third * min(max(likeness, low), high))


def integrity(drift: float) -> float:
    """Expected share of facts that known things keep, 0…1."""
    first, second = limits.INTEGRITY_BY_DRIFT
    return _logistic(first + second * drift)


def _accuracy(cell: Cell, look: Look | None) -> Estimate | None:
    if cell.gain is None:
        return None
    if look is None or look.likeness is None:
        return _through(cell.gain, accuracy)
    g, k = cell.gain, look.likeness
    bounds = [accuracy(g.low, k.low), accuracy(g.high, k.high)]
    return _percent(accuracy(g.value, k.value), *bounds)


def _artifacts(cell: Cell, look: Look | None) -> Estimate | None:
    """None without pictures; otherwise 100 at the base model's own loudness, 0 at the limit of what is burnt."""
    if look is None:
        return None
    off = abs(math.log(max(look.loudness, 1e-6))) / math.log(limits.LOUD)
    value = max(0.0, 1.0 - off)
    return _percent(value, value, value)


def _through(estimate: Estimate, curve: Callable[[float], float]) -> Estimate:
    return _percent(curve(estimate.value), curve(estimate.low), curve(estimate.high))


def _percent(value: float, one: float, two: float) -> Estimate:
    return Estimate(*(round(100 * part, 1) for part in (value, min(one, two), max(one, two))))


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-max(min(x, 60.0), -60.0)))
