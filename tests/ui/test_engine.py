"""The engine is imported by one thread at a time, whichever button was pressed first."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.ui import engine, job
from lora_trainer.ui.job import Job


def in_threads(work: Callable[[], Any], count: int = 4) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_only_one_thread_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, most = [0], [0]

    def slow(name: str) -> None:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        time.sleep(0.002)
        at_once[0] -= 1

    monkeypatch.setattr(engine, "import_module", slow)
    in_threads(engine.load)
    assert most[0] == 1


@pytest.mark.parametrize(
    "ask", [lambda job: job.start({}), lambda job: job.test({}), lambda job: job.check({"dataset": "x"})]
)
def test_everything_that_needs_the_engine_loads_it_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Callable[[Job], Any]
) -> None:
    class LoadedError(Exception):
        pass

    def loaded() -> None:
        raise LoadedError

    monkeypatch.setattr(job, "load", loaded)
    with pytest.raises(LoadedError):
        ask(Job(lambda: None, lambda: tmp_path))  # type: ignore[arg-type, return-value]


def test_a_host_is_made_once(tmp_path: Path) -> None:
    made: list[object] = []

    def slow() -> Any:
        time.sleep(0.01)
        made.append(object())
        return made[-1]

    one = Job(slow, lambda: tmp_path)
    in_threads(lambda: one.host)
    assert len(made) == 1
