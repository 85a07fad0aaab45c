"""Choose the verdict's numbers on the fitted runs, and count how right they are on the others."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.calibration.runs import RUNS, SAVES, Place, Run
from tests.calibration.truth import STRENGTHS, Truth, label, truth


@dataclass(frozen=True)
class Row:
    """A cell of a run with what the judge and the measures say of it."""

    run: Run
    step: int
    strength: float
    truth: Truth
    n: int
    measured: dict[str, Any]

    def value(self, name: str) -> float:
        """A measure's value; NaN where it wasn't measured."""
        if name == "likeness":
            found = (self.measured.get("look") or {}).get("likeness")
            return float(found["value"]) if found else float("nan")
        found = self.measured[name]
        return float(found["value"] if isinstance(found, dict) else found)


def rows(place: Place) -> list[Row]:
    """All cells of all runs that were both judged and measured."""
    result = []
    for run in RUNS:
        judged, measured = place.root / "judged" / f"{run.name}.json", place.root / "measured" / f"{run.name}.json"
        if not (judged.is_file() and measured.is_file()):
            continue
        counts, numbers = json.loads(judged.read_text()), json.loads(measured.read_text())
        for step in SAVES:
            for strength in STRENGTHS:
                key = f"{step}|{strength}"
                if key in counts and key in numbers:
                    found = truth(run, counts[key], counts["base"])
                    result.append(Row(run, step, strength, found, sum(counts[key]["n"]), numbers[key]))
    return result


def logistic(x: np.ndarray, y: np.ndarray, weights: np.ndarray, ridge: float = 0.05) -> np.ndarray:
    """Coefficients (intercept first) of a logistic regression on shares ``y`` in 0…1, by Newton's method."""
    design = np.column_stack([np.ones(len(x)), x])
    beta = np.zeros(design.shape[1])
    penalty = ridge * np.eye(len(beta))
    penalty[0, 0] = 0
    for _ in range(60):
        p = 1 / (1 + np.exp(-np.clip(design @ beta, -40, 40)))
        w = weights * np.maximum(p * (1 - p), 1e-5)
        step = np.linalg.solve(
            design.T @ (design * w[:, None]) + penalty, design.T @ (weights * (y - p)) - penalty @ beta
        )
        beta += np.clip(step, -2, 2)
    return beta


def labels(found: list[Row]) -> dict[tuple[str, int], str]:
    """What each saved file truly is."""
    files: dict[tuple[str, int], dict[float, Truth]] = {}
    for row in found:
        files.setdefault((row.run.name, row.step), {})[row.strength] = row.truth
    return {key: label(cells) for key, cells in files.items() if len(cells) == len(STRENGTHS)}
