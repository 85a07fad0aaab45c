"""The loss over the steps as a small inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT = 900, 260  # pixels, unless the page asks for another width
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 12, 34
MOST_POINTS = 450  # more than the drawing can show


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
    rows = [row for row in rows if math.isfinite(row["loss"])]
    if len(rows) < 2:
        return ""
    steps = [int(row["step"]) for row in rows]
    losses = [float(row["loss"]) for row in rows]
    window = max(1, len(rows) // 20)
    means = moving_mean(losses, window)
    ordered = sorted(losses)
    top = max(ordered[math.ceil(len(ordered) * 0.99) - 1], *means) or 1.0  # one spike shouldn't flatten all else
    first, last = steps[0], max(steps[-1], steps[0] + 1, until)

    def x(step: int) -> float:
        return LEFT + (step - first) / (last - first) * (width - LEFT - RIGHT)

    def y(loss: float) -> float:
        return TOP + (1 - min(loss, top) / top) * (HEIGHT - TOP - BOTTOM)

    def line(values: Sequence[float]) -> str:
        stride = max(1, len(values) // MOST_POINTS)
        kept = sorted({*range(0, len(values), stride), len(values) - 1})
        return " ".join(f"{x(steps[i]):.1f},{y(values[i]):.1f}" for i in kept)

    marks = []
    for i in range(5):
        loss, step = top * i / 4, round(first + (last - first) * i / 4)
        marks.append(f'<line class="axis" x1="{LEFT}" x2="{width - RIGHT}" y1="{y(loss):.1f}" y2="{y(loss):.1f}"/>')
        marks.append(f'<text x="{LEFT - 8}" y="{y(loss) + 4:.1f}" text-anchor="end">{loss:.3g}</text>')
        anchor = "start" if i == 0 else "end" if i == 4 else "middle"
        marks.append(f'<text x="{x(step):.1f}" y="{HEIGHT - 12}" text-anchor="{anchor}">{step}</text>')
    label = f"Training loss from step {first} to {steps[-1]}; the mean over {window} steps ends at {means[-1]:.4g}."
    return (
        f'<svg class="curve" viewBox="0 0 {width} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f'{"".join(marks)}<polyline class="raw" points="{line(losses)}"/>'
        f'<polyline class="mean" points="{line(means)}"/></svg>'
        f'<p class="quiet small">{escape(label)}</p>'
    )
