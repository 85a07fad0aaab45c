"""The counts as a table: each method's means over the subjects, and how far it is from training without it."""

from __future__ import annotations

from collections.abc import Iterable
from math import sqrt
from statistics import mean, stdev
from typing import NamedTuple

from tests.calibration.runs import Place
from tests.calibration.truth import truth
from tests.overfitting.judging import judged, read_counts
from tests.overfitting.trials import EMA, METHODS, PLAIN, RUNS, SEEDS, STEPS, Method, Trial


class Row(NamedTuple):
    """What the judge says of a save: three shares of what is possible, their product, and what is only copied: the
    training images' background under the short prompt, and the mark that no caption tells of."""

    accuracy: float
    following: float
    integrity: float
    quality: float
    copied: float


def row(place: Place, trial: Trial, step: int) -> Row | None:
    """A save's row; None where it hasn't been judged."""
    path = judged(place, trial)
    if not path.is_file():
        return None
    counts = read_counts(path)[str(step)]
    found = truth(trial.run, counts, read_counts(place.root / "judged" / f"{trial.run.name}-base.json"))
    copied = max(counts["short_ground"], counts["marked"])
    return Row(found.accuracy, found.following, found.integrity, found.quality, copied)


def table(place: Place) -> str:
    """Markdown; only what has a plain training to be compared with counts."""
    lines: list[str] = []
    for step in STEPS:
        lines += [
            f"After {step} steps:", "",
            "| method | trainings | accuracy | following | integrity | product | against none | copied |",
            "|---|---|---|---|---|---|---|---|",
        ]  # fmt: skip
        for method in (PLAIN, EMA, *(one for one in METHODS if one is not PLAIN)):
            if pairs := list(_pairs(place, method, step)):
                lines.append(_line(method, pairs))
        lines.append("")
    return "\n".join(lines)


def _pairs(place: Place, method: Method, step: int) -> Iterable[tuple[Row, Row]]:
    """A method's rows, each beside the one of the same subject and seed without it."""
    for run in RUNS:
        for seed in SEEDS:
            own, plain = (row(place, Trial(run, one, seed), step) for one in (method, PLAIN))
            if own is not None and plain is not None:
                yield own, plain


def _line(method: Method, pairs: list[tuple[Row, Row]]) -> str:
    own = [mean(values) for values in zip(*(ours for ours, _ in pairs), strict=True)]
    gains = [ours.quality - plain.quality for ours, plain in pairs]
    error = stdev(gains) / sqrt(len(gains)) if len(gains) > 1 else float("nan")
    gain = "" if method is PLAIN else f"{mean(gains):+.3f} ± {error:.3f}"
    figures = " | ".join(f"{value:.2f}" for value in own[:4])
    return f"| {method.label} | {len(pairs)} | {figures} | {gain} | {own[4]:.2f} |"
