"""What a training has learned and kept at each save, as a chart: the same figures as the test's, from fewer images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lora_trainer.evaluation.chart import Point, Series, chart
from lora_trainer.evaluation.scores import accuracy, integrity
from lora_trainer.training.events import Learned


def learned_chart(points: Sequence[Learned], width: int = 900, until: int = 0) -> str:
    """SVG with a sentence; empty with fewer than two saves.

    Args:
        until: the last step of a run that hasn't ended.
    """
    if len(points) < 2:
        return ""
    series = [
        Series("learned: expected share of images that show it", "accuracy",
               [_point(p.step, p.gain, accuracy) for p in points if p.gain]),
        Series("the same, by images that are held out", "artifacts",
               [_point(p.step, p.held_out, accuracy) for p in points if p.held_out]),
        Series("kept: expected share of what it knew", "flexibility",
               [_point(p.step, p.drift, integrity) for p in points]),
    ]  # fmt: skip
    ticks = [(float(p.step), str(p.step)) for p in points]
    if until > points[-1].step:
        ticks.append((float(until), str(until)))
    return chart(series, ticks, sentence(points[-1]), width) + f'<p class="quiet small">{sentence(points[-1])}</p>'


def sentence(point: Learned) -> str:
    """One save in words."""
    kept = f"it has kept {100 * integrity(point.drift[0]):.0f} % of what the base model knew"
    if point.gain is None:
        return f"At step {point.step} {kept}."
    shown = f"it shows the subject in about {100 * accuracy(point.gain[0]):.0f} of 100 images"
    return f"At step {point.step} {shown}; {kept}."


def _point(step: int, found: tuple[float, float, float], curve: Callable[[float], float]) -> Point:
    value, one, two = (100 * curve(part) for part in found)
    return float(step), value, min(one, two), max(one, two)
