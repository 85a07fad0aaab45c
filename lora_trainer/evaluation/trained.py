"""What the run that trained a LoRA left in its folder: its log and its settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lora_trainer.errors import FileError
from lora_trainer.files import read_lines, read_object

LARGEST = 1e30  # of a number in the log; more is no loss


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of ``log.jsonl`` that have a step and a finite loss; empty for a LoRA that was trained elsewhere."""
    return [
        {key: value for key, value in row.items() if key != "seconds" or _is_number(value)}
        for row in read_lines(path)
        if _is_step(row.get("step")) and _is_number(row.get("loss"))
    ]


def read_run(path: Path) -> dict[str, Any]:
    """``run.json``, or an empty dict if there is none that can be read."""
    try:
        return read_object(path)
    except FileError:
        return {}


def _is_step(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < LARGEST
