"""A tracker that isn't there, or that fails, costs one line and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lora_trainer.training import trackers
from lora_trainer.training.events import Event, Finished, Notice
from tests.support.runs import of, run, tensors

LORA = "loras/zork.safetensors"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    root = tmp_path_factory.mktemp("plain")
    run(root)
    return tensors(root / LORA)


def told(events: list[Event], word: str) -> list[str]:
    return [event.text for event in of(events, Notice) if word in event.text]


def test_a_package_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: dict[str, torch.Tensor]
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda package: None)
    _, events = run(tmp_path, log_with="tensorboard")
    assert told(events, "tensorboard") == [
        "Nothing is logged to tensorboard: its package isn't installed; pip install tensorboard."
    ]
    assert of(events, Finished)[0].path and all(
        torch.equal(one, plain[key]) for key, one in tensors(tmp_path / LORA).items()
    )
    _, events = run(tmp_path / "all", log_with="all")
    assert not told(events, "logged to"), "all that there are"


def test_one_that_fails_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: dict[str, torch.Tensor]
) -> None:
    from accelerate.tracking import TensorBoardTracker

    calls: list[int] = []

    def failing(self: Any, values: dict[str, float], step: int) -> None:
        calls.append(step)
        if step == 3:
            raise OSError("No space left on device")

    monkeypatch.setattr(TensorBoardTracker, "log", failing)
    _, events = run(tmp_path, log_with="tensorboard")
    assert told(events, "tensorboard") == ["Nothing more is logged to tensorboard: No space left on device"]
    assert calls == [1, 2, 3] and of(events, Finished)[0].step > 3
    assert all(torch.equal(one, plain[key]) for key, one in tensors(tmp_path / LORA).items())


def test_nobody_is_asked_to_log_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    from types import SimpleNamespace

    class Settings:
        mode = "online"

    monkeypatch.setattr(trackers, "find_spec", lambda package: package == "wandb" or None)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(api=SimpleNamespace(api_key=None), Settings=Settings))
    _, events = run(tmp_path, log_with="wandb")
    assert told(events, "wandb") == ["Nothing more is logged to wandb: nobody is logged in; run wandb login once"]
