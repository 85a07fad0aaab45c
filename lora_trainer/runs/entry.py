"""What is told of one run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from lora_trainer.errors import counted, shown
from lora_trainer.runs.moments import moment

State = Literal["running", "interrupted", "stopped", "done", "failed"]
ENDED: tuple[State, ...] = ("interrupted", "stopped", "done", "failed")


@dataclass(frozen=True)
class RunEntry:
    """One run, or the test of a LoRA that was trained elsewhere."""

    name: str
    state: State
    step: int  # the last one that was logged
    steps: int  # 0: unknown
    when: float  # its last change, in seconds since 1970
    why: str = ""  # it failed
    verdict: str = ""  # of its test
    preview: Path | None = None  # its latest sample image, or one of its test
    dataset: str = ""
    trigger: str = ""
    checkpoint: str = ""
    resumable: bool = False
    offered: bool = False  # nobody asked for its end, nor to forget it
    lora: Path | None = None
    report: Path | None = None  # the page
    half_tested: bool = False  # its test didn't come to its end, and can be continued
    warnings: tuple[str, ...] = ()

    @property
    def actions(self) -> tuple[str, ...]:
        """What can be done with it now: continue, continue_test, test, report, settings, use, delete, forget."""
        possible = {
            "continue": self.resumable,
            "continue_test": self.half_tested and self.lora is not None and self.state != "running",
            "test": self.lora is not None and self.state != "running",
            "report": self.report is not None,
            "settings": bool(self.dataset),
            "use": self.lora is not None and self.state != "running",
            "delete": self.state != "running",
            "forget": self.offered,
        }
        return tuple(action for action, can in possible.items() if can)

    @property
    def line(self) -> str:
        """The run in one line: ``zorbo stopped at step 62 of 150, yesterday 23:10``."""
        of = f" of {self.steps}" if self.steps else ""
        at = f"at step {self.step}{of}" if self.step else "before its first step"
        when, name = moment(self.when), shown(self.name)
        if self.state == "running":
            return f"{name} is being trained: step {self.step}{of}"
        if self.state == "done":
            steps = self.steps or self.step
            return f"{name} finished all {counted(steps, 'step')}, {when}" if steps else f"{name} was tested, {when}"
        if self.state == "failed":
            return f"{name} failed {at}, {when}" + (f": {self.why}" if self.why else "")
        return f"{name} {'was stopped' if self.state == 'stopped' else 'stopped'} {at}, {when}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        paths = {name: str(path) if (path := getattr(self, name)) else "" for name in ("preview", "lora", "report")}
        when = datetime.fromtimestamp(_possible(self.when), timezone.utc).isoformat(timespec="seconds")
        lists = {"warnings": list(self.warnings), "actions": list(self.actions)}
        return {**asdict(self), **paths, "when": when, **lists, "line": self.line}


def _possible(when: float) -> float:
    return min(max(when, 0.0), 4e9)
