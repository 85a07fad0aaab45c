"""The one job of this process; "Reload UI" doesn't reload this module."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lora_trainer.ui.job import Job

if TYPE_CHECKING:
    from lora_trainer.hosts.base import Host

_job: Job | None = None


def shared_job(
    host: Callable[[], Host], output: Callable[[], Path], test_after: Callable[[], bool] = lambda: False
) -> Job:
    """The process's job, made at the first call. This module isn't reloaded by "Reload UI", so a run survives it."""
    global _job
    if _job is None:
        _job = Job(host, output, test_after)
        atexit.register(_job.close)
    return _job
