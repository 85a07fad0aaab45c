"""What the run that trained a LoRA left in its folder: its log and its settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of ``log.jsonl`` that have a step and a loss; empty for a LoRA that was trained elsewhere."""
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for line in lines:
        row = _json(line)
        if isinstance(row, dict) and isinstance(row.get("loss"), (int, float)) and "step" in row:
            rows.append(row)
    return rows


def read_run(path: Path) -> dict[str, Any]:
    """``run.json``, or an empty dict if there is none."""
    try:
        run = _json(path.read_text(encoding="utf-8"))
    except OSError:
        return {}
    return run if isinstance(run, dict) else {}


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:  # a line that was being written when the power failed
        return None
