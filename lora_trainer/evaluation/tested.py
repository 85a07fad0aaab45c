"""What a test left in ``report.json``, which may be damaged or somebody else's: only what is sound is used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

LARGEST = 1e6  # of a strength


def rows_of(report: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The rows of ``images`` or ``epochs`` that are as a test writes them; no picture's path leads out of the run."""
    found = report.get(name)
    return [row for row in found if _is_sound(row, name)] if isinstance(found, list) else []


def best_strength(report: Mapping[str, Any], file: str) -> float | None:
    """At which a file is best, which isn't that of another one that is recommended; None if its test doesn't say."""
    for row in [*rows_of({"best": [report.get("recommended")]}, "best"), *rows_of(report, "epochs")]:
        if row["file"] == file and row["strength"]:
            return float(row["strength"])
    return None


def _is_sound(row: Any, name: str) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("file"), str):
        return False
    strength = row.get("strength")
    if isinstance(strength, bool) or not isinstance(strength, (int, float)) or not abs(strength) < LARGEST:
        return False  # NaN isn't smaller, either
    if name != "images":
        return True
    path, texts = row.get("path"), [row.get(key) for key in ("prompt", "infotext", "kind")]
    return (
        isinstance(path, str)
        and _is_inside(path)
        and all(isinstance(text, str) for text in texts)
        and (type(row.get("seed")) is int)
    )


def _is_inside(path: str) -> bool:
    return not PurePosixPath(path).is_absolute() and ".." not in PurePosixPath(path).parts
