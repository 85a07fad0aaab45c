"""A disk that will be full before the end is told at the beginning, with how much is missing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lora_trainer.training.events import StepDone, Watched
from tests.support.runs import of, run

MANY: dict[str, Any] = {"save_every_n_epochs": 1, "max_train_epochs": 5, "save_every_n_steps": 7}


def with_free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free))


def written(root: Path) -> int:
    return sum(path.stat().st_size for pattern in ("loras/*", "out/zork/state/*", "out/zork/samples/*")
               for path in root.glob(pattern))  # fmt: skip


@pytest.mark.parametrize(
    "options", [MANY, {"optimizer_type": "SGD"}, {**MANY, "save_last_n_epochs": 2, "save_last_n_steps": 7}]
)
def test_what_is_told_is_what_the_run_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    run(tmp_path / "measured", **options)
    size = written(tmp_path / "measured")
    with_free(monkeypatch, int(size * 1.5))
    _, events = run(tmp_path / "enough", **options)
    assert of(events, Watched) == []
    with_free(monkeypatch, int(size * 0.6))  # a state this small is half settings and what the watch has seen
    _, events = run(tmp_path / "short", **options)
    [told] = of(events, Watched)
    assert told.text in events[-1].notices
    assert told.kind == "disk" and "but this run is still to write about" in told.text
    assert [step.step for step in of(events[: events.index(told)], StepDone)] == [1]


def test_large_sample_pictures_are_reckoned_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"sample_every_n_epochs": 0, "sample_every_n_steps": 1, "sample_prompts": "zork --w 2048 --h 1024"}
    with_free(monkeypatch, 2 * 2048 * 1024 * 4)  # four of them
    _, events = run(tmp_path / "three", **options, max_train_epochs=0, max_train_steps=3)
    assert of(events, Watched) == []
    _, events = run(tmp_path / "many", **options, max_train_epochs=0, max_train_steps=9)
    assert [told.kind for told in of(events, Watched)] == ["disk"]


def test_a_disk_that_fills_up_on_the_way_is_told_within_ten_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def filling(path: Path) -> Any:
        asked.append(path)
        return SimpleNamespace(free=10**12 if len(asked) < 3 else 0)

    monkeypatch.setattr("shutil.disk_usage", filling)
    _, events = run(tmp_path, **MANY)
    [told] = of(events, Watched)
    assert 10 <= of(events[: events.index(told)], StepDone)[-1].step <= 31
    assert told.text.startswith(f"The disk of {tmp_path / 'loras'} has 0 MB free")
