"""What was planned beside what the first steps took."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from lora_trainer.memory import size_text
from lora_trainer.training.events import Event, Phase, Planned, StepDone

if TYPE_CHECKING:
    from lora_trainer.training.session import Session

GB = 2**30
STEPS = 5  # that are measured; the first of them isn't, which chooses kernels


class Comparison:
    """Watches the steps of a run that has a plan."""

    def __init__(self, run: Session) -> None:
        self._run, self._seconds = run, list[float]()

    def read(self, event: Event) -> Iterator[Planned]:
        """The plan once more, with what was measured, after a few steps."""
        if not isinstance(event, StepDone) or self._run.plan is None or len(self._seconds) >= STEPS:
            return
        if not self._seconds and self._run.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._run.device)
        self._seconds.append(event.seconds)
        if len(self._seconds) == STEPS:
            yield self._measured(self._run.plan)

    def _measured(self, plan: Planned) -> Planned:
        seconds = sum(self._seconds[1:]) / (STEPS - 1)
        cuda = self._run.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(self._run.device) if cuda else None
        last: Phase = replace(
            plan.phases[-1],
            measured_gb=None if peak is None else round(peak / GB, 3),
            measured_minutes=round(seconds * self._run.steps / 60, 1),
        )
        said = f"{seconds:.2g} s a step" + (f", at most {size_text(peak)}" if peak is not None else "")
        return replace(plan, text=f"{plan.text} Measured: {said}.", phases=(*plan.phases[:-1], last))
