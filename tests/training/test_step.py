"""A step that fp16 skips: the weights and the schedule stay where they are, and it is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lora_trainer.config import RunConfig
from lora_trainer.training.events import Finished, StepDone
from lora_trainer.training.precision import total_norm
from lora_trainer.training.step import Update, make_update
from tests.support.runs import of, run


class Scaler:
    """As torch's for CUDA, in plain arithmetic: a gradient that isn't finite skips the step and halves the scale."""

    def __init__(self) -> None:
        self.factor, self.found = 1024.0, False

    def is_enabled(self) -> bool:
        return True

    def get_scale(self) -> float:
        return self.factor

    def scale(self, losses: torch.Tensor) -> torch.Tensor:
        return losses * self.factor

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        for gradient in gradients:
            gradient /= self.factor
        self.found = not all(bool(torch.isfinite(gradient).all()) for gradient in gradients)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        if not self.found:
            optimizer.step()

    def update(self) -> None:
        self.factor /= 2 if self.found else 1

    def state_dict(self) -> dict[str, Any]:
        return {"factor": self.factor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.factor = state["factor"]


def update(scaler: Any) -> tuple[Update, nn.Parameter]:
    parameter = nn.Parameter(torch.ones(3))
    config = RunConfig().replace(learning_rate=0.1, lr_scheduler="linear", optimizer_type="SGD")
    made = make_update([{"params": [parameter], "name": "unet"}], config, 10, torch.device("cpu"))
    made.scaler = scaler
    return made, parameter


def test_a_skipped_step_moves_neither_weights_nor_schedule() -> None:
    made, parameter = update(Scaler())
    for bad, skipped in ((float("inf"), True), (1.0, False), (float("nan"), True), (1.0, False)):
        weights, rates = parameter.detach().clone(), [group["lr"] for group in made.optimizer.param_groups]
        made.backward((parameter * bad).sum()[None], 1)
        made.clip()
        assert made.apply() == {"unet": rates[0]} and made.skipped is skipped
        assert torch.equal(parameter, weights) is skipped
        assert ([group["lr"] for group in made.optimizer.param_groups] == rates) is skipped
    assert made.scheduler.last_epoch == 2


@pytest.mark.skipif(not hasattr(torch.amp, "GradScaler"), reason="torch before 2.3 has no gradient scaler for the CPU")
def test_torchs_own_scaler_does_so_too() -> None:
    made, parameter = update(torch.amp.GradScaler("cpu", init_scale=1024.0))
    for bad, skipped in ((float("inf"), True), (1.0, False)):
        made.backward((parameter * bad).sum()[None], 1)
        made.clip()
        made.apply()
        assert made.skipped is skipped
    assert made.scheduler.last_epoch == 1 and made.scaler.get_scale() == 512


def test_a_run_counts_on_and_its_log_says_which_steps_were_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backward, calls = Update.backward, [0]

    def overflowing(self: Update, losses: torch.Tensor, images: int) -> float:
        calls[0] += 1
        loss = float(losses.detach().sum())
        backward(self, losses * (float("inf") if calls[0] in (1, 2, 7) else 1.0), images)
        return loss

    monkeypatch.setattr(Update, "backward", overflowing)
    monkeypatch.setattr("lora_trainer.training.step.make_grad_scaler", lambda *args: Scaler())
    _, events = run(tmp_path, lr_scheduler="linear")
    steps = of(events, StepDone)
    assert [step.step for step in steps if step.skipped] == [1, 2, 7] and of(events, Finished)[0].step == 20
    rates = [step.lr["unet"] for step in steps]
    assert rates[:3] == [1e-2] * 3 and rates[-1] == pytest.approx(1e-2 * (1 - 16 / 20))
    lines = [json.loads(line) for line in (tmp_path / "out/zork/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["skipped"]] == [1, 2, 7] and lines[0]["grad_norm"] is None


def test_the_norm_of_all_tensors_together() -> None:
    tensors = [torch.full((3, 2), 2.0), torch.full((4,), -1.0)]
    assert float(total_norm(tensors)) == pytest.approx((6 * 4 + 4) ** 0.5)
    assert not torch.isfinite(total_norm([*tensors, torch.tensor([float("nan")])]))
