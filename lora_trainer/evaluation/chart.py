"""Figures of 0 to 100 with their intervals as a small inline SVG: what was learned and kept, over steps or strength."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

HEIGHT = 220  # pixels
LEFT, RIGHT, TOP, BOTTOM = 40, 12, 10, 30
TICK = 46  # pixels from one to the next

Point = tuple[float, float, float, float]  # place, value, low, high


@dataclass(frozen=True)
class Series:
    """One line; ``kind`` chooses its colour and dashes in the stylesheet: accuracy, flexibility or artifacts."""

    name: str
    kind: str
    points: Sequence[Point]


def chart(series: Sequence[Series], ticks: Sequence[tuple[float, str]], about: str, width: int = 900) -> str:
    """SVG of the lines and their bands, with a legend; empty where no line has two points.

    Args:
        ticks: places on the horizontal axis with what is written there.
        about: a sentence for who can't see it.
    """
    drawn = [one for one in series if len(one.points) > 1]
    if not drawn:
        return ""
    places = [place for place, _ in ticks] + [point[0] for one in drawn for point in one.points]
    first, last = min(places), max(places)

    def x(place: float) -> float:
        return LEFT + (place - first) / ((last - first) or 1) * (width - LEFT - RIGHT)

    def y(value: float) -> float:
        return TOP + (1 - min(max(value, 0), 100) / 100) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for value in (0, 25, 50, 75, 100):
        at = f"{y(value):.1f}"
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{width - RIGHT}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value}</text>')
    for place, text in _spread(ticks, x):
        anchor = "start" if place == first else "end" if place == last else "middle"
        parts.append(f'<text x="{x(place):.1f}" y="{HEIGHT - 10}" text-anchor="{anchor}">{escape(text)}</text>')
    for one in drawn:
        band = [(x(p), y(high)) for p, _, _, high in one.points] + [(x(p), y(low)) for p, _, low, _ in one.points][::-1]
        line = [(x(p), y(value)) for p, value, _, _ in one.points]
        parts.append(f'<polygon class="band {one.kind}" points="{_points(band)}"/>')
        parts.append(f'<polyline class="line {one.kind}" points="{_points(line)}"/>')
        parts += [f'<circle class="dot {one.kind}" cx="{a:.1f}" cy="{b:.1f}" r="3.5"/>' for a, b in line]
    legend = " ".join(f'<span class="key {one.kind}">{escape(one.name)}</span>' for one in drawn)
    return (
        f'<svg class="curve chart" viewBox="0 0 {width} {HEIGHT}" role="img" aria-label="{escape(about)}">'
        f'{"".join(parts)}</svg><p class="legend small">{legend}</p>'
    )


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in places)


def _spread(ticks: Sequence[tuple[float, str]], x: Callable[[float], float]) -> list[tuple[float, str]]:
    """As many ticks as there is room for, the first and the last among them."""
    kept: list[tuple[float, str]] = []
    for place, text in ticks[:-1]:
        far = not kept or x(place) - x(kept[-1][0]) >= TICK
        if far and (not kept or x(ticks[-1][0]) - x(place) >= TICK):
            kept.append((place, text))
    return [*kept, *ticks[-1:]]
