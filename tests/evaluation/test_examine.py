"""Measuring all files of a run: what is measured, what is said where something isn't, and what a stop keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from lora_trainer.evaluation.events import Measuring
from lora_trainer.evaluation.examine import Findings, examine
from lora_trainer.evaluation.plan import TestPlan
from lora_trainer.training.events import CancelToken, Event, Notice
from tests.support.runs import of, run
from tests.support.tiny_host import TinyHost

PLAN = TestPlan("zork", strengths=(0.0, 0.4, 0.7, 1.0, 1.3)).completed(64)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("run")
    run(root, max_train_epochs=4, save_every_n_epochs=1)
    return root


def files(root: Path) -> list[Path]:
    return sorted((root / "loras").glob("zork-*.safetensors"))


def facts(root: Path) -> dict[str, Any]:
    return json.loads((root / "out/zork/run.json").read_text())


def examined(
    root: Path, record: dict[str, Any], others: list[Path], main: Path | None = None, stop_at: int = 0
) -> tuple[Findings, list[Event | Measuring]]:
    found, events, token = Findings(), [], CancelToken()
    host, main = TinyHost(root / "loras"), main or root / "loras/zork.safetensors"
    for event in examine(host, main, others, PLAN, record, found, token):
        events.append(event)
        if stop_at and len(of(events, Measuring)) == stop_at:
            token.cancel()
    assert not host.taken
    return found, events


def test_all_files_are_measured_and_the_best_ones_at_every_strength(trained: Path) -> None:
    found, events = examined(trained, facts(trained), files(trained))
    assert {strength for _, strength in found.cells} == {0.4, 0.7, 1.0, 1.3}
    by_file = {path.name: [cell.strength for cell in found.of(path.name)] for path in files(trained)}
    assert all({0.7, 1.0} <= set(strengths) for strengths in by_file.values())
    assert [cell.strength for cell in found.of("zork.safetensors")] == [0.4, 0.7, 1.0, 1.3]
    assert not found.missing and ("zork.safetensors", 1.0) in found.looks
    assert all(cell.gain is not None for cell in found.cells.values())
    measured = of(events, Measuring)
    assert [event.done for event in measured] == list(range(1, len(measured) + 1))
    assert all(event.done <= event.total for event in measured)


def test_a_stop_keeps_what_was_measured(trained: Path) -> None:
    found, events = examined(trained, facts(trained), files(trained), stop_at=3)
    assert len(found.cells) == 3 and not found.looks and len(of(events, Measuring)) == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dataset": None}, "it was trained elsewhere"),
        ({"dataset": "/nowhere"}, "its training images can't be used"),
        ({"config": {"rank": 3}}, "its training images can't be used (Unknown option"),
    ],
)
def test_without_its_images_the_rest_is_measured_and_it_is_said(
    trained: Path, change: dict[str, Any], words: str
) -> None:
    found, events = examined(trained, {**facts(trained), **change}, [])
    assert len(found.missing) == 1 and words in found.missing[0]
    assert [notice.text for notice in of(events, Notice)] == found.missing
    assert found.cells and all(cell.gain is None and cell.drift.value > 0 for cell in found.cells.values())


def test_one_image_is_too_few(tmp_path: Path) -> None:
    run(tmp_path, max_train_epochs=1)
    for path in sorted((tmp_path / "data/2_zork").glob("*.png"))[1:]:
        path.unlink()
    found, _ = examined(tmp_path, facts(tmp_path), [])
    assert "1 training image can't be told from chance" in found.missing[0] and found.cells


def test_a_broken_file_is_named_and_the_others_are_measured(trained: Path, tmp_path: Path) -> None:
    tensors = load_file(trained / "loras/zork.safetensors")
    tensors[min(tensors, key=lambda name: -tensors[name].numel())].view(-1)[0] = float("nan")
    broken = tmp_path / "zork-000009.safetensors"
    save_file(tensors, broken)
    found, _ = examined(trained, facts(trained), [broken, files(trained)[0]])
    assert "zork-000009.safetensors wasn't measured" in found.missing[0] and "NaN" in found.missing[0]
    assert {file for file, _ in found.cells} == {files(trained)[0].name, "zork.safetensors"}


def test_a_failure_of_the_model_is_told_and_no_more(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr("lora_trainer.evaluation.measuring.Bench.cell", fails)
    found, events = examined(trained, facts(trained), [])
    assert not found.cells and len(found.missing) == 1 and "memory" in found.missing[0]
    assert of(events, Notice)
