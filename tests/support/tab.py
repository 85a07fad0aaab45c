"""The tab without a browser: a job and a host that note what they are asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lora_trainer.config import RunConfig
from lora_trainer.hosts.base import Glance
from lora_trainer.ui.desk import Desk
from lora_trainer.ui.forms import Page
from lora_trainer.ui.looking import Looking

SD1 = Glance("model.safetensors")


class FakeHost:
    """Tells what is loaded."""

    def __init__(self) -> None:
        self.seen: Glance | None = SD1
        self.models: Path | None = None
        self.refreshed = 0
        self.lora_dir = Path("loras")
        self.changed: list[Path] = []

    def glance(self) -> Glance | None:
        return self.seen

    def defaults(self) -> dict[str, Any]:
        return {"mixed_precision": "bf16"}

    def checkpoint_dir(self) -> Path | None:
        return self.models

    def refresh_checkpoints(self) -> None:
        self.refreshed += 1

    def refresh_loras(self, changed: Sequence[Path] = ()) -> None:
        self.changed += changed


class FakeJob:
    """Notes what it is asked to start."""

    def __init__(self, output: Path) -> None:
        self.looking = Looking()
        self.output, self.host = output, FakeHost()
        self.asked: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self.running = False

    def start(self, values: dict[str, Any]) -> str:
        if self.error:
            raise self.error
        RunConfig.from_dict(values["config"])
        self.asked.append(values)
        return "task(1)"

    def test(self, values: dict[str, Any]) -> str:
        self.asked.append(values)
        return "task(2)"


def page(desk: Desk, **values: Any) -> Page:
    """The page after an event that sent some values and options."""
    options = dict(values.pop("options", {}))
    begin = {"dataset": "", "trigger": "", "preset": "starter", "name": "", "test": True}
    return desk.page({**begin, "repeats": "10", **values, "resolution": "64,64", **options})
