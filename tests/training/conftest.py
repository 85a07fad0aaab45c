"""What the tests of trainings share."""

from __future__ import annotations

import pytest

from lora_trainer.training.watch import health
from lora_trainer.training.watch.pace import Pace


class Unhurried(Pace):
    """Steps of a test take as long as the machine has other things to do."""

    def look(self, facts: object) -> None:
        """Never slow."""


@pytest.fixture(autouse=True)
def no_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs aren't told that their steps are slow; tests/training/watch/test_pace.py asks the pace itself."""
    monkeypatch.setattr(health, "Pace", Unhurried)
