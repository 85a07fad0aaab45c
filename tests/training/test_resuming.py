"""Stopping and resuming a run: the same bytes as without the break."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lora_trainer.errors import ConfigError, FileError
from lora_trainer.training.events import Finished, Started, StepDone
from tests.support.runs import of, run


@pytest.mark.parametrize(
    ("optimizer", "stop_at"),
    [
        ("AdamW", 3),
        ("AdamW", 10),
        ("Lion", 13),
        ("Prodigy", 3),
        ("Adafactor", 13),
    ],  # in an epoch, at its end, in the next
)
def test_resumed_equals_uninterrupted(tmp_path: Path, optimizer: str, stop_at: int) -> None:
    options = {
        "optimizer_type": optimizer, "shuffle_caption": True, "network_dropout": 0.1, "lr_scheduler": "cosine",
        "noise_offset": 0.1, "save_every_n_epochs": 1, "optimizer_args": {},
    }  # fmt: skip
    if optimizer == "Prodigy":
        options["learning_rate"] = 1.0
    if optimizer == "Adafactor":
        options |= {"optimizer_args": {"relative_step": False, "scale_parameter": False}}
    run(tmp_path / "whole", **options)
    _, events = run(tmp_path / "cut", stop_at=stop_at, **options)
    finished = of(events, Finished)[0]
    assert finished.stopped and finished.step <= stop_at + 2
    _, events = run(tmp_path / "cut", resume=True, **options)
    assert of(events, Started)[0].step == finished.step and not of(events, Finished)[0].stopped
    for name in ("zork.safetensors", "zork-000001.safetensors"):
        whole, cut = ((tmp_path / place / "loras" / name).read_bytes() for place in ("whole", "cut"))
        assert whole == cut, name
    log = [json.loads(line)["step"] for line in (tmp_path / "cut/out/zork/log.jsonl").read_text().splitlines()]
    assert log == list(range(1, 21))


def test_resume_refuses_what_would_change_the_result(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="nothing to resume"):
        run(tmp_path, resume=True)
    run(tmp_path, stop_at=3)
    with pytest.raises(ConfigError, match=r"network_alpha was 4.0, now 2.0"):
        run(tmp_path, resume=True, network_alpha=2)
    (tmp_path / "data/2_zork/0.txt").write_text("another caption")
    with pytest.raises(ConfigError, match="dataset isn't the one"):
        run(tmp_path, resume=True)
    state = tmp_path / "out/zork/state/state.pt"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(FileError, match="damaged"):
        run(tmp_path, resume=True)


def test_the_remedy_for_nan_can_be_applied_on_resuming(tmp_path: Path) -> None:
    run(tmp_path, stop_at=5)
    _, events = run(tmp_path, resume=True, learning_rate=1e-3)
    rates = [step.lr["unet"] for step in of(events, StepDone)]
    _, whole = run(tmp_path / "whole")
    usual = [step.lr["unet"] for step in of(whole, StepDone)][5:]
    assert rates == pytest.approx([rate / 10 for rate in usual])


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    run(tmp_path)
    before = (tmp_path / "loras/zork.safetensors").read_bytes()
    run(tmp_path, resume=True)
    assert (tmp_path / "loras/zork.safetensors").read_bytes() == before


def test_a_torn_log_line_does_not_block_resuming(tmp_path: Path) -> None:
    run(tmp_path, stop_at=5)
    log = tmp_path / "out/zork/log.jsonl"
    log.write_text(log.read_text() + '{"step": 6, "lr": {"unet": 0.1}')
    run(tmp_path, resume=True)
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == list(range(1, 21))
