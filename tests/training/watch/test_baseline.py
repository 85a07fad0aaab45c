"""The base model's loss beside the LoRA's: which steps are measured, what it is, and that it changes nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_trainer.training.events import Started, StepDone
from lora_trainer.training.watch.baseline import Baseline
from tests.support.runs import of, run
from tests.support.tiny_host import TinyHost


def test_the_first_ten_steps_and_then_at_most_every_fourth_are_measured() -> None:
    for steps in (20, 100, 800, 1500, 10_000, 1_000_000):
        baseline = Baseline(steps)
        due = [step for step in range(min(steps, 20_000)) if baseline.due(step)]
        assert due[:10] == list(range(10)) and len(due) <= 10 + steps / 4
        assert len([step for step in range(0, steps, max(4, steps // 5000)) if baseline.due(step)]) <= 210
    assert [step for step in range(50, 70) if Baseline(100, 50).due(step)] == [*range(50, 60), 60, 64, 68]


def test_what_is_expected_is_the_mean_at_the_nearest_timesteps() -> None:
    baseline = Baseline(100)
    assert math.isnan(baseline.expected([500]))
    baseline.note([10, 20, 990], [0.4, 0.6, 0.01])
    baseline.note([990], [float("nan")])
    assert baseline.expected([30]) == 0.5 and baseline.expected([999]) == 0.01 and baseline.expected([0]) == 0.5
    assert baseline.expected([0, 999]) == pytest.approx(0.255) and baseline.expected([700]) == 0.01


@pytest.mark.parametrize("text", [False, True])
def test_the_baseline_is_the_loss_of_a_run_that_learns_nothing(tmp_path: Path, text: bool) -> None:
    """With a trained text encoder the captions are the base model's own, too."""
    options: dict[str, Any] = {"text_encoder_lr": 1e-2 if text else 0, "train_batch_size": 2, "network_dropout": 0.3}
    _, events = run(tmp_path / "learning", **options)
    _, still = run(tmp_path / "still", **{**options, "learning_rate": 0, "text_encoder_lr": 0, "unet_lr": 1e-30})
    base = [step.loss for step in of(still, StepDone)]
    measured = [step for step in of(events, StepDone) if step.baseline is not None]
    assert [step.step for step in measured] == [*range(1, 11)]
    assert [step.baseline for step in measured] == pytest.approx([base[step.step - 1] for step in measured], rel=1e-6)
    assert (
        measured[0].baseline == pytest.approx(measured[0].loss, rel=1e-6) and measured[-1].baseline != measured[-1].loss
    )


def test_measuring_changes_no_bit_of_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"text_encoder_lr": 1e-2, "network_dropout": 0.3, "gradient_checkpointing": True}
    state = torch.random.get_rng_state()
    _, events = run(tmp_path / "with", **options)
    assert torch.equal(torch.random.get_rng_state(), state)
    monkeypatch.setattr(Baseline, "due", lambda self, step: False)
    _, without = run(tmp_path / "without", **options)
    assert [step.loss for step in of(events, StepDone)] == [step.loss for step in of(without, StepDone)]
    with_it, without_it = ((tmp_path / place / "loras/zork.safetensors").read_bytes() for place in ("with", "without"))
    assert with_it == without_it


def test_measuring_costs_a_forward_pass_in_these_steps_only(tmp_path: Path) -> None:
    host = TinyHost(tmp_path / "loras")
    predict, calls = host.model.predict, {True: 0, False: 0}

    def counted(*args: Any) -> torch.Tensor:
        calls[torch.is_grad_enabled()] += 1
        return predict(*args)

    host.model.predict = counted  # type: ignore[method-assign]
    _, events = run(tmp_path, host=host, max_train_epochs=6)
    measured = [step for step in of(events, StepDone) if step.baseline is not None]
    assert calls == {True: 60, False: len(measured)} and len(measured) == 10 + (60 - 12) // 4


def test_the_log_keeps_it_and_a_continued_run_brings_it_along(tmp_path: Path) -> None:
    _, events = run(tmp_path, stop_at=12)
    before = {step.step: step.baseline for step in of(events, StepDone) if step.baseline is not None}
    lines = [json.loads(line) for line in (tmp_path / "out/zork/log.jsonl").read_text().splitlines()]
    assert {line["step"]: line["baseline"] for line in lines if line["baseline"] is not None} == before
    _, events = run(tmp_path, resume=True)
    assert dict(of(events, Started)[0].before.baselines) == before
