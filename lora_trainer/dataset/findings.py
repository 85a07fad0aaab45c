"""What a check finds: how much it matters, which files it is about, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lora_trainer.errors import shown

Severity = Literal["error", "warning", "info"]  # not worth training yet; would be better otherwise; good to know
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


@dataclass(frozen=True)
class Finding:
    """One thing that was found; ``str()`` is the line for the user."""

    kind: str  # the measure or rule, such as "blur"
    severity: Severity
    reason: str  # without the full stop
    remedy: str = ""  # what to do, as the second half of the sentence
    files: tuple[Path, ...] = ()

    def __str__(self) -> str:
        return shown(f"{self.reason}; {self.remedy}." if self.remedy else f"{self.reason}.")

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "kind": self.kind, "severity": self.severity, "reason": shown(self.reason), "remedy": shown(self.remedy),
            "files": [shown(path) for path in self.files],
        }  # fmt: skip


def sorted_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """What matters most comes first; of equal weight what is about more files."""
    return tuple(sorted(findings, key=lambda one: (SEVERITIES.index(one.severity), -len(one.files))))


def names(values: list[str], most: int = 3) -> str:
    """The first few names of a list, and how many more there are."""
    rest = len(values) - most
    return ", ".join(values[:most]) + (f" and {rest} more" if rest > 0 else "")
