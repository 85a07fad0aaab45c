"""Optimiser, rates, duration and schedule: every logged rate in closed form, and the steps that were really taken."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.options.run import BASE, INPUT, UPDATE, Case, Check, Outcome

from lora_trainer.errors import TrainingDivergedError

RATE = BASE["learning_rate"]
CLIP = 0.01  # far below every gradient, so that each has this norm
FOUR = {"max_train_steps": 4, "save_every_n_steps": 1, "max_grad_norm": CLIP}
RATES = {"rates"} | UPDATE
BOTH = {"text_encoder_lr": None}  # text encoder and UNet at learning_rate


def used(run: Outcome) -> list[float]:
    """The rate that each step really used: how far the weights moved by a gradient of norm CLIP.

    The first step starts from up = 0, where only ``up`` moves; ``down`` as it was made is the first file's.
    """
    names = [f"zork-step{step:08d}" for step in range(1, len(run.log))] + ["zork"]
    files = [run.weights(name) for name in names]
    start = {key: tensor * 0 if "lora_up" in key else tensor for key, tensor in files[0].items()}
    rates = []
    for before, after in zip([start, *files], files, strict=False):
        square = sum(float((after[key] - before[key]).double().square().sum()) for key in after)
        rates.append(math.sqrt(square) / CLIP)
    return rates


def follows(factor: Callable[[float], float]) -> Check:
    """The rate of every step, in the log and as it was used, is ``factor(steps done)`` of the full one."""

    def check(base: Outcome, changed: Outcome) -> None:
        expected = [RATE * factor(step) for step in range(4)]
        assert [rates["unet"] for rates in changed.rates] == pytest.approx(expected, rel=1e-6, abs=1e-12)
        assert used(changed) == pytest.approx(expected, rel=1e-3, abs=1e-12)

    return check


def rates_are(**rates: float) -> Check:
    """The first step's rate of every group."""

    def check(base: Outcome, changed: Outcome) -> None:
        assert changed.rates[0] == pytest.approx(rates)

    return check


def average_is_saved(base: Outcome, changed: Outcome) -> None:
    """Of two steps: d is 2/11 and 3/12, and the average begins with the weights as they were made."""
    given = {"ema_decay": 0.5, "save_every_n_steps": 1}
    run, start = changed.world.run(**given), changed.world.run(**given, learning_rate=1e-12)
    first, second = run.weights("zork-step00000001"), run.weights()
    for key, average in run.weights("zork-ema").items():
        expected = start.weights()[key].double()
        for decay, tensor in ((2 / 11, first[key]), (3 / 12, second[key])):
            expected = decay * expected + (1 - decay) * tensor.double()
        torch.testing.assert_close(average.double(), expected, rtol=1e-5, atol=1e-7)


def clipped(base: Outcome, changed: Outcome) -> None:
    """The log has the norm before clipping; every step moves the weights by its rate times the norm after it."""
    assert changed.log[0]["grad_norm"] == pytest.approx(base.log[0]["grad_norm"]) and base.log[0]["grad_norm"] > CLIP
    follows(lambda step: 0.5 * (1 + math.cos(math.pi * step / 4)))(base, base.world.run(**FOUR))


def weights_shrink(base: Outcome, changed: Outcome) -> None:
    """Decoupled from the gradient, SGD's weight_decay pulls the weights towards 0."""
    plain, decayed = (
        sum(float(tensor.square().sum()) for key, tensor in run.weights().items() if "lora_down" in key)
        for run in (base, changed)
    )
    assert decayed < plain * (1 - 0.5 * RATE * 0.5)


def every_weight_moves_alike(base: Outcome, changed: Outcome) -> None:
    """Lion's first step is the sign of the gradient: every entry of ``up`` moves by the rate."""
    first = changed.world.run(optimizer_type="Lion", lr_scheduler="constant", max_train_steps=1).weights()
    for key, tensor in first.items():
        if "lora_up" in key:
            assert set(tensor.abs().unique().tolist()) <= {0.0, RATE}


def one_step_of_both_batches(base: Outcome, changed: Outcome) -> None:
    """One image a batch and two batches a step are one step of both images."""
    assert len(changed.model.calls) == len(base.model.calls) == 2 * len(changed.log)
    whole = base.world.run(max_train_epochs=1, lr_scheduler="constant")
    assert changed.log[0]["loss"] == pytest.approx(whole.log[0]["loss"], rel=1e-4)
    assert changed.log[0]["grad_norm"] == pytest.approx(whole.log[0]["grad_norm"], rel=1e-3)


def steps_are(number: int) -> Check:
    def check(base: Outcome, changed: Outcome) -> None:
        assert len(changed.log) == number and changed.metadata()["ss_steps"] == str(number)

    return check


LENGTH = {"steps", "batches", "timesteps", "texts", "encoding"} | RATES
GROUPED = {"steps", "loss", "gradient"} | RATES
WARM = {"lr_scheduler": "constant_with_warmup", **FOUR}


def begins_at(step: int) -> Check:
    """What is trained is what the run without it trains from that step on, and the schedule begins there."""

    def check(base: Outcome, changed: Outcome) -> None:
        assert [call.timesteps for call in changed.model.calls] == [call.timesteps for call in base.model.calls[step:]]
        assert torch.equal(changed.model.calls[0].noisy, base.model.calls[step].noisy)
        assert changed.log[0]["step"] == step + 1 and changed.rates[0] == base.rates[0]

    return check


LATER = LENGTH | INPUT


def stops_at_once(base: Outcome, changed: Outcome) -> None:
    """At a rate at which nothing can be learned, the run ends after it was halved as often as allowed, or at once."""

    def told(**options: Any) -> str:
        with pytest.raises(TrainingDivergedError) as error:
            base.world.run(learning_rate=1e25, **options)
        return str(error.value)

    assert "was halved 4 times" in told() and "halved" not in told(on_divergence="stop")


OPTIMIZER: dict[str, Case] = {
    "optimizer_type": Case("Lion", UPDATE, check=every_weight_moves_alike),
    "optimizer_args": Case({"weight_decay": 0.5}, UPDATE, check=weights_shrink),
    "learning_rate": Case(0.25, RATES, check=rates_are(unet=0.25), idle=[{"unet_lr": 0.5}]),
    "embedding_lr": Case(
        0.25, RATES, {"pivotal_tuning": True}, check=rates_are(embedding=0.25, unet=0.5), idle=[{}]),
    "unet_lr": Case(0.25, RATES, check=rates_are(unet=0.25)),
    "text_encoder_lr": Case(0.125, RATES, BOTH, check=rates_are(text_encoder=0.125, unet=0.5)),
    "loraplus_lr_ratio": Case(4, {"groups"} | RATES, check=rates_are(**{"unet": 0.5, "unet plus": 2})),
    "loraplus_unet_lr_ratio": Case(
        4, {"groups"} | RATES, BOTH,
        rates_are(**{"text_encoder": 0.5, "unet": 0.5, "unet plus": 2}), idle=[{"unet_lr": 0, "text_encoder_lr": 0.5}]),
    "loraplus_text_encoder_lr_ratio": Case(
        4, {"groups"} | RATES, BOTH,
        rates_are(**{"text_encoder": 0.5, "text_encoder plus": 2, "unet": 0.5}), idle=[{}]),
    "ema_decay": Case(0.5, {"files"}, check=average_is_saved),
    "max_grad_norm": Case(CLIP, UPDATE, check=clipped),
    "on_divergence": Case("stop", set(), check=stops_at_once),
    "gradient_accumulation_steps": Case(
        2, GROUPED, {"train_batch_size": 1, "max_train_epochs": 1, "lr_scheduler": "constant"},
        one_step_of_both_batches),
    "max_train_epochs": Case(3, LENGTH, check=steps_are(3), idle=[{"max_train_steps": 1}]),
    "max_train_steps": Case(3, LENGTH, check=steps_are(3)),
    "initial_epoch": Case(2, LATER, check=begins_at(1)),
    "initial_step": Case(1, LATER, check=begins_at(1), idle=[{"train_batch_size": 1, "max_train_epochs": 1}]),
    "skip_until_initial_step": Case(
        True, {"context"} | LATER, {"initial_step": 1, "train_batch_size": 1}, begins_at(1), idle=[{}]),
    "seed": Case(8, {"timesteps", "texts", "context"} | INPUT),
}  # fmt: skip

SCHEDULE: dict[str, Case] = {
    "lr_scheduler": Case(
        "linear", RATES, FOUR, follows(lambda step: 1 - step / 4), idle=[{"lr_scheduler_type": "ConstantLR"}]),
    "lr_scheduler_type": Case("ConstantLR", RATES, FOUR, follows(lambda step: 1 / 3)),
    "lr_scheduler_args": Case(
        {"gamma": 0.25}, RATES, {"lr_scheduler_type": "ExponentialLR", "lr_scheduler_args": {"gamma": 0.5}, **FOUR},
        follows(lambda step: 0.25**step)),
    "lr_warmup_steps": Case(2, RATES, WARM, follows(lambda step: min(1, step / 2))),
    "lr_decay_steps": Case(
        0.75, RATES, {"lr_scheduler": "warmup_stable_decay", "lr_decay_steps": 0.25, **FOUR},
        follows(lambda step: 1 if step < 1 else 0.5 * (1 + math.cos(math.pi * (step - 1) / 3))), idle=[{}]),
    "lr_scheduler_num_cycles": Case(
        2, RATES, {"lr_scheduler": "cosine_with_restarts", **FOUR},
        follows(lambda step: 0.5 * (1 + math.cos(math.pi * (2 * step / 4 % 1)))), idle=[{}]),
    "lr_scheduler_power": Case(
        2, RATES, {"lr_scheduler": "polynomial", **FOUR},
        follows(lambda step: (1 - 1e-7 / RATE) * (1 - step / 4) ** 2 + 1e-7 / RATE), idle=[{}]),
    "lr_scheduler_timescale": Case(
        1, RATES, {"lr_scheduler": "inverse_sqrt", **FOUR}, follows(lambda step: (step + 1) ** -0.5), idle=[{}]),
    "lr_scheduler_min_lr_ratio": Case(
        0.5, RATES, {"lr_scheduler": "cosine_with_min_lr", **FOUR},
        follows(lambda step: 0.5 + 0.25 * (1 + math.cos(math.pi * step / 4))), idle=[{}]),
}  # fmt: skip
