"""A job with a host that notes what is asked of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lora_trainer.hosts.base import GeneratedImage, GenerateRequest, Progress
from lora_trainer.training.events import CancelToken
from lora_trainer.ui.job import Job
from tests.support.tiny_host import TinyHost

SMALL = {"resolution": 64, "network_dim": 2, "max_train_steps": 4, "seed": 7, "save_every_n_epochs": 0}


class OfficeHost(TinyHost):
    """Notes what the job does with it; ``act`` is called at every boundary."""

    def __init__(self, lora_dir: Path) -> None:
        TinyHost.__init__(self, lora_dir)
        self.calls: list[str] = []
        self.shown: list[Progress] = []
        self.act: Callable[[Progress], None] = lambda progress: None
        self.token = CancelToken()
        self.modules: int | None = None

    def defaults(self) -> dict[str, Any]:
        return {"clip_skip": 2}

    @contextlib.contextmanager
    def working(self, job: str, token: CancelToken) -> Iterator[None]:
        self.calls.append("begin")
        self.token = token
        try:
            yield
        finally:
            assert not self.taken, "the model is back before the queue is left"
            self.calls.append("end")

    def between_steps(self, progress: Progress) -> None:
        self.shown.append(progress)
        self.act(progress)

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        self.calls.append("lend")
        yield
        self.calls.append("take")

    def generate(self, request: GenerateRequest) -> GeneratedImage:
        made = super().generate(request)
        made.image.paste((40, 90, 200 + request.seed), (0, 0, 32, 64))
        return made

    def lora_modules(self, path: Path) -> int | None:
        return self.modules


def until(job: Job, *states: str, seconds: float = 60) -> dict[str, Any]:
    """Wait for one of these states."""
    end = time.monotonic() + seconds
    while (status := job.status())["state"] not in states:
        assert time.monotonic() < end, status
        time.sleep(0.01)
    return status
