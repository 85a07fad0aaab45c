"""What the independent judge reads of the trials' files, at strength 1."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lora_trainer.files import write_json
from tests.calibration.runs import Place
from tests.calibration.truth import look
from tests.overfitting.trials import STEPS, Trial, file

PICTURES = (30, 12, 24)  # in another context, of the short prompt, of known things


def judge_trial(trial: Trial, place: Place) -> None:
    """``judged/TRIAL.json`` has a row for each save; ``judged/RUN-base.json`` has the base model's."""
    base = place.root / "judged" / f"{trial.run.name}-base.json"
    if not base.is_file():
        _write(base, asdict(look(trial.run, None, 0.0, PICTURES)))
    path = judged(place, trial)
    if not path.is_file():
        _write(path, {str(step): asdict(look(trial.run, file(place, trial, step), 1.0, PICTURES)) for step in STEPS})


def judged(place: Place, trial: Trial) -> Path:
    """Where a trial's counts are."""
    return place.root / "judged" / f"{trial.name}.json"


def read_counts(path: Path) -> dict[str, Any]:
    """Counts that were written."""
    counts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return counts


def _write(path: Path, counts: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, counts)
