"""The loss over the steps, itself and against the base model's, as small inline SVGs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT = 900, 260  # pixels, unless the page asks for another width
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 12, 34
MOST_POINTS = 450  # more than the drawing can show
LEAST_WINDOW = 5  # compared steps in a mean


def moving_mean(values: Sequence[float], window: int) -> list[float]:
    """Mean of each value and up to ``window`` - 1 before it; what isn't finite is left out."""
    result, total, held = [], 0.0, []
    for value in values:
        held.append(value if math.isfinite(value) else None)
        total += held[-1] or 0.0
        if len(held) > window:
            total -= held.pop(0) or 0.0
        count = sum(1 for v in held if v is not None)
        result.append(total / count if count else math.nan)
    return result


def loss_curve(rows: Sequence[dict[str, Any]], width: int = WIDTH, until: int = 0) -> str:
    """SVG of the rows of ``log.jsonl``: each step's loss and its moving mean; empty with fewer than two rows.

    Args:
        until: the last step of a run that hasn't ended; the curve leaves room for what is to come.
    """
    points = [(int(row["step"]), float(row["loss"])) for row in rows if math.isfinite(row["loss"])]
    if len(points) < 2:
        return ""
    window = max(1, len(points) // 20)
    means = moving_mean([loss for _, loss in points], window)
    top = max(_highest([loss for _, loss in points]), *means) or 1.0
    first, last = points[0][0], points[-1][0]
    label = f"Training loss from step {first} to {last}; the mean over {window} steps ends at {means[-1]:.4g}."
    return _drawn(points, means, (0.0, top), width, until, label)


def gain_curve(rows: Sequence[dict[str, Any]], width: int = WIDTH, until: int = 0) -> str:
    """SVG of each step's loss less the base model's at the same images and noise, and its moving mean: below zero, the
    LoRA predicts better than its base model. Empty where fewer than two steps were compared.

    Args:
        until: the last step of a run that hasn't ended.
    """
    points = [
        (int(row["step"]), float(row["loss"]) - float(base))
        for row in rows
        if (base := row.get("baseline")) is not None and math.isfinite(row["loss"]) and math.isfinite(base)
    ]
    if len(points) < 2:
        return ""
    values = [value for _, value in points]
    window = max(LEAST_WINDOW, len(points) // 10)
    means = moving_mean(values, window)
    low, top = min(0.0, -_highest([-value for value in values]), *means), max(0.0, _highest(values), *means)
    low, top = (low, top) if top > low else (-1.0, 1.0)
    said = "it has learned" if means[-1] < 0 else "nothing learned yet"
    label = (
        f"Loss less the base model's, from step {points[0][0]} to {points[-1][0]}; the mean over {window} compared "
        f"steps ends at {means[-1]:.3g}: {said}."
    )
    return _drawn(points, means, (low, top), width, until, label)


def _highest(values: Sequence[float]) -> float:
    """Of nearly all: one spike shouldn't flatten all else."""
    return sorted(values)[math.ceil(len(values) * 0.99) - 1]


def _drawn(
    points: Sequence[tuple[int, float]],
    means: Sequence[float],
    bounds: tuple[float, float],
    width: int,
    until: int,
    label: str,
) -> str:
    """Both lines, with axes; a sentence below, also for who can't see them."""
    low, top = bounds
    first, last = points[0][0], max(points[-1][0], points[0][0] + 1, until)

    def x(step: int) -> float:
        return LEFT + (step - first) / (last - first) * (width - LEFT - RIGHT)

    def y(value: float) -> float:
        return TOP + (1 - (min(max(value, low), top) - low) / (top - low)) * (HEIGHT - TOP - BOTTOM)

    def line(values: Sequence[float]) -> str:
        stride = max(1, len(values) // MOST_POINTS)
        kept = sorted({*range(0, len(values), stride), len(values) - 1})
        return " ".join(f"{x(points[i][0]):.1f},{y(values[i]):.1f}" for i in kept)

    def across(kind: str, value: float) -> str:
        return f'<line class="{kind}" x1="{LEFT}" x2="{width - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'

    marks = [across("zero", 0.0)] if low < 0 else []
    for i in range(5):
        value, step = low + (top - low) * i / 4, round(first + (last - first) * i / 4)
        marks.append(across("axis", value))
        marks.append(f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>')
        anchor = "start" if i == 0 else "end" if i == 4 else "middle"
        marks.append(f'<text x="{x(step):.1f}" y="{HEIGHT - 12}" text-anchor="{anchor}">{step}</text>')
    return (
        f'<svg class="curve" viewBox="0 0 {width} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f'{"".join(marks)}<polyline class="raw" points="{line([value for _, value in points])}"/>'
        f'<polyline class="mean" points="{line(means)}"/></svg>'
        f'<p class="quiet small">{escape(label)}</p>'
    )
