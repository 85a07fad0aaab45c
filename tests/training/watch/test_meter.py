"""The memory in use is told while a run is at work, and a driver that doesn't say is no harm."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lora_trainer.memory import in_use
from lora_trainer.training.events import Finished, MemoryUse
from lora_trainer.training.watch import meter
from lora_trainer.training.watch.meter import Meter
from tests.support.runs import of, run

CPU = torch.device("cpu")


def test_a_processor_tells_what_this_process_holds() -> None:
    psutil = pytest.importorskip("psutil")
    before = in_use(CPU)
    block = torch.ones(64 * 2**20, dtype=torch.float32)
    after = in_use(CPU)
    assert before is not None and after is not None and after[0] - before[0] > 0.9 * block.nbytes
    assert after[1] == psutil.virtual_memory().total


def test_a_card_tells_what_everybody_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 * 2**30, 8 * 2**30))
    assert in_use(torch.device("cuda", 0)) == (5 * 2**30, 8 * 2**30)


def test_the_peak_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    held = iter([2, 5, 3])
    monkeypatch.setattr(meter, "in_use", lambda device: (next(held) * 2**30, 8 * 2**30))
    monkeypatch.setattr(meter, "EVERY", 0.0)
    one = Meter(CPU)
    told = [found for _ in range(3) for found in one.read()]
    assert told == [MemoryUse(2, 2, 8), MemoryUse(5, 5, 8), MemoryUse(3, 5, 8)]


def test_a_run_tells_it_at_most_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "EVERY", 1e9)
    _, events = run(tmp_path)
    (told,) = of(events, MemoryUse)
    assert 0 < told.now_gb == told.peak_gb < told.limit_gb


def test_a_driver_that_fails_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def failing(device: torch.device) -> None:
        asked.append(device)
        raise RuntimeError("no such call")

    monkeypatch.setattr(meter, "in_use", failing)
    monkeypatch.setattr(meter, "EVERY", 0.0)
    _, events = run(tmp_path)
    assert of(events, MemoryUse) == [] and isinstance(events[-1], Finished) and len(asked) == 1
