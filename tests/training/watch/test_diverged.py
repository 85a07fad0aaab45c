"""A training that diverges: what was good is kept, the sentence says what to do, and doing it works."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_trainer.errors import TrainingDivergedError
from lora_trainer.training.events import Event, Finished, Notice, Saved, Started, StepDone, Watched
from lora_trainer.training.state_file import is_intact, read_state, write_state
from tests.support.runs import of, run, tensors
from tests.support.tiny_host import TinyHost

STOP: dict[str, Any] = {"on_divergence": "stop"}
HOT: dict[str, Any] = {"learning_rate": 1e6}


def position(state: Path) -> dict[str, Any]:
    assert is_intact(state)
    found: dict[str, Any] = json.loads(read_state(state)["position"])
    return found


class SpoiltHost(TinyHost):
    """From the step ``at`` on, whatever is predicted with the LoRA is wrong; the base model's predictions are right."""

    def __init__(self, lora_dir: Path, at: int, factor: float, until: int = 10**9) -> None:
        super().__init__(lora_dir)
        predict, self.steps = self.model.predict, 0

        def spoilt(*args: Any) -> torch.Tensor:
            self.steps += torch.is_grad_enabled()
            wrong = torch.is_grad_enabled() and at <= self.steps < until
            return predict(*args) * (factor if wrong else 1.0)

        self.model.predict = spoilt  # type: ignore[method-assign]


def test_a_rate_that_is_far_too_high_then_a_lower_one_then_resume(tmp_path: Path) -> None:
    events: list[Event] = []
    with pytest.raises(TrainingDivergedError) as told:
        run(tmp_path, events=events, **HOT, **STOP)
    assert of(events, StepDone)[-1].step <= 10
    assert (
        "Nothing that it learned is of use: lower the learning rate (it is 1e+06), then resume, which begins anew"
        in str(told.value)
    )
    assert not (tmp_path / "loras/zork.safetensors").exists() and not of(events, Saved)
    assert position(tmp_path / "out/zork/state/state.pt")["step"] == 0
    assert not (tmp_path / "out/zork/state/previous.pt").exists()
    _, events = run(tmp_path, resume=True)
    assert of(events, Finished)[0].step == 20
    run(tmp_path / "whole")
    resumed, whole = ((tmp_path / place / "loras/zork.safetensors").read_bytes() for place in ("", "whole"))
    assert resumed == whole


def test_the_state_from_before_is_what_is_gone_back_to(tmp_path: Path) -> None:
    """A rate that rises until nothing is right any more: the state of step 20 is good, that of step 40 isn't."""
    options: dict[str, Any] = {
        "max_train_epochs": 10, "save_every_n_epochs": 1, "lr_scheduler": "piecewise_constant",
        "lr_scheduler_args": {"step_rules": "1:35,1e7"}, "learning_rate": 1e-3, **STOP,
    }  # fmt: skip
    events: list[Event] = []
    with pytest.raises(
        TrainingDivergedError, match=r"What was learned until step (20|30) is kept: lower the learning"
    ) as told:
        run(tmp_path, events=events, **options)
    good = position(tmp_path / "out/zork/state/state.pt")["step"]
    assert f"until step {good} is kept" in str(told.value) and 36 <= of(events, StepDone)[-1].step <= 45
    saved = of(events, Saved)[-1]
    assert saved.final and saved.step == good and saved.path == tmp_path / "loras/zork.safetensors"
    logged = [json.loads(line)["step"] for line in (tmp_path / "out/zork/log.jsonl").read_text().splitlines()]
    assert logged == list(range(1, good + 1))
    run(tmp_path / "short", **{**options, "max_train_steps": good})
    kept, known = (tensors(tmp_path / place / "loras/zork.safetensors") for place in ("", "short"))
    assert all(torch.equal(kept[key], known[key]) for key in known)
    _, events = run(tmp_path, resume=True, **{**options, "learning_rate": 1e-10})
    assert of(events, Started)[0].step == good and of(events, Finished)[0].step == 100


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), 30.0])
def test_what_was_learned_before_is_trusted_up_to_where_it_went_wrong(tmp_path: Path, factor: float) -> None:
    options = {"max_train_epochs": 4, "save_every_n_epochs": 1, **STOP}
    with pytest.raises(TrainingDivergedError, match="What was learned until step 20 is kept"):
        run(tmp_path, host=SpoiltHost(tmp_path / "loras", 27, factor), **options)
    run(tmp_path, resume=True, **options)
    run(tmp_path / "whole", **options)
    resumed, whole = ((tmp_path / place / "loras/zork.safetensors").read_bytes() for place in ("", "whole"))
    assert resumed == whole


def test_go_back_goes_on_by_itself_with_half_the_rate(tmp_path: Path) -> None:
    options: dict[str, Any] = {"max_train_epochs": 4, "save_every_n_epochs": 1}
    host = SpoiltHost(tmp_path / "loras", 27, 30.0, until=29)
    _, events = run(tmp_path, host=host, **options)
    [told] = of(events, Watched)
    assert told.kind == "loss" and "It goes on from step 20, with half the learning rate (0.005)." in told.text
    again = of(events, Started)[1]
    assert again.step == 20 and [step for step, _ in again.before.losses] == list(range(1, 21))
    finished = of(events, Finished)[0]
    assert finished.step == 40 and not finished.stopped and told.text in finished.notices
    rates = [step.lr["unet"] for step in of(events[events.index(again) :], StepDone)]
    _, whole = run(tmp_path / "whole", **options)
    usual = [step.lr["unet"] for step in of(whole, StepDone)][20:]
    assert rates == pytest.approx([rate / 2 for rate in usual])
    logged = [json.loads(line)["step"] for line in (tmp_path / "out/zork/log.jsonl").read_text().splitlines()]
    assert logged == list(range(1, 41))


def test_a_continuation_compares_with_the_steps_before_it(tmp_path: Path) -> None:
    """Gradients are steep by those of twenty steps and more, which the continuation hasn't made itself."""
    options = {"max_train_epochs": 4, **STOP}
    run(tmp_path, stop_at=25, **options)
    host = TinyHost(tmp_path / "loras")
    predict = host.model.predict

    def steep(*args: Any) -> torch.Tensor:
        made = predict(*args)
        if torch.is_grad_enabled():
            made.register_hook(lambda gradient: gradient * 1e5)
        return made

    host.model.predict = steep  # type: ignore[method-assign]
    with pytest.raises(TrainingDivergedError, match="Since step 26 the gradients are over 1000 times as large"):
        run(tmp_path, host=host, resume=True, **options)


@pytest.mark.parametrize("seen", [{"less": {"room": 1}, "watch": 3}, None], ids=str)
def test_a_state_that_does_not_say_what_was_seen_is_continued_all_the_same(tmp_path: Path, seen: Any) -> None:
    run(tmp_path, stop_at=5)
    path = tmp_path / "out/zork/state/state.pt"
    state = read_state(path)
    if seen is None:  # version 0.1
        state = {**{key: value for key, value in state.items() if key != "seen"}, "format": 1}
    else:
        state["seen"] = json.dumps(seen)
    write_state(path, state)
    _, events = run(tmp_path, resume=True)
    assert of(events, Finished)[0].step == 20 and of(events, Watched) == []


def test_the_lower_rate_lasts_over_a_stop_until_another_is_set(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "max_train_epochs": 4, "lr_scheduler": "constant", "stop_at": 30,
    }  # fmt: skip
    run(tmp_path, host=SpoiltHost(tmp_path / "loras", 12, float("nan"), until=13), **options)
    assert position(tmp_path / "out/zork/state/state.pt")["rate"] == 0.5
    _, events = run(tmp_path, resume=True, **{**options, "stop_at": 35})
    assert {step.lr["unet"] for step in of(events, StepDone)} == {0.005}
    _, events = run(tmp_path, resume=True, **{**options, "learning_rate": 2e-3})
    assert {step.lr["unet"] for step in of(events, StepDone)} == {2e-3}


def test_after_four_times_half_the_rate_it_stops(tmp_path: Path) -> None:
    events: list[Event] = []
    with pytest.raises(
        TrainingDivergedError, match=r"The rate was halved 4 times\. .*the learning rate \(it is 62500\)"
    ):
        run(tmp_path, events=events, **HOT)
    assert len(of(events, Watched)) == 4 and not (tmp_path / "loras/zork.safetensors").exists()


def test_an_optimiser_that_finds_its_own_rate_has_none_to_halve(tmp_path: Path) -> None:
    options = {"optimizer_type": "Adafactor", "optimizer_args": {"relative_step": True}}
    with pytest.raises(TrainingDivergedError, match="choose another optimizer_type, then resume"):
        run(tmp_path, host=SpoiltHost(tmp_path / "loras", 12, float("nan")), **options)


def test_inputs_that_the_base_model_cannot_compute_either_spoil_nothing(tmp_path: Path) -> None:
    host = TinyHost(tmp_path / "loras")
    predict, calls = host.model.predict, [0]

    def poisoned(*args: Any) -> torch.Tensor:
        calls[0] += torch.is_grad_enabled()
        return predict(*args) * (float("nan") if calls[0] == 16 else 1.0)

    host.model.predict = poisoned  # type: ignore[method-assign]
    events: list[Event] = []
    with pytest.raises(TrainingDivergedError, match=r"in step 16 with \d\.png; everything up to step 15 is saved"):
        run(tmp_path, host=host, events=events)
    assert of(events, Saved)[-1].step == 15 and position(tmp_path / "out/zork/state/state.pt")["step"] == 15
    assert of(events, Notice)[-1].text.endswith("The run can be resumed.")
