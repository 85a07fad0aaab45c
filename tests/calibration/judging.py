"""The judge's round: every saved file of a run at every strength, more pictures where the decision is. It resumes."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from lora_trainer.files import write_json
from tests.calibration.runs import SAVES, Place, Run
from tests.calibration.truth import COARSE, FINE, STRENGTHS, Truth, look, together, truth

NEAR = 0.2  # of the best quality: cells that might be the best one get more pictures
MOST_FINE = 7  # of them


def judge_run(run: Run, place: Place) -> None:
    """Count what the judge sees; ``judged/RUN.json`` has a row for each ``step|strength`` and for the base model."""
    path = place.root / "judged" / f"{run.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    if "base" not in found:
        found["base"] = asdict(look(run, None, 0.0, FINE))
    for step in SAVES:
        _judge_file(run, place, step, found)
        write_json(path, found)
    cells = {key: truth(run, counts, found["base"]) for key, counts in found.items() if key != "base"}
    for key in _deciding(cells):
        if tuple(found[key]["n"]) != COARSE:
            continue
        step, strength = key.split("|")
        more = asdict(look(run, place.lora(run, int(step)), float(strength), FINE, skip=COARSE))
        found[key] = together(found[key], more)
        write_json(path, found)


def _judge_file(run: Run, place: Place, step: int, found: dict[str, Any]) -> None:
    lora, idle = place.lora(run, step), False
    for strength in sorted(STRENGTHS, reverse=True):
        key = f"{step}|{strength}"
        if key in found:
            continue
        if idle:  # what does next to nothing at a high strength does nothing at a lower one
            found[key] = {**found["base"], "n": [0, 0, 0]}
            continue
        counts = asdict(look(run, lora, strength))
        found[key] = counts
        idle = counts["right"] <= 0.2 and counts["known"] >= 0.9


def _deciding(cells: dict[str, Truth]) -> list[str]:
    """The cells near the run's best, and the best strength of each file, the best first."""
    best = max(cell.quality for cell in cells.values())
    ranked = sorted(cells, key=lambda key: -cells[key].quality)
    near = [key for key in ranked if cells[key].quality >= best - NEAR and cells[key].quality > 0.2][:MOST_FINE]
    of_file = {key.split("|")[0]: key for key in reversed(ranked) if cells[key].quality > 0.2}
    return list(dict.fromkeys([*near, *of_file.values()]))
