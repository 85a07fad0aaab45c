"""What the watch tells of made-up steps; for real runs see tests/support/watch_table.py and docs/watch.md."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lora_trainer.training.step import Update
from lora_trainer.training.watch.facts import Facts, Finding
from lora_trainer.training.watch.health import MOST_SKIPPED, Watch
from tests.support.runs import run

GOOD = Facts(1, 0.1, 0.1, 0.1, 0.2, 20.0, 1.0)


def told(steps: Iterable[Facts]) -> list[tuple[int, Finding]]:
    """What is told, and after which step."""
    watch = Watch()
    return [(step, found) for step, facts in enumerate(steps, 1) for found in watch.look(replace(facts, step=step))]


def first(steps: Iterable[Facts]) -> tuple[int, Finding]:
    found = told(steps)
    assert found
    return found[0]


def noisy(seed: int, share: float, every: int = 1) -> Iterator[Facts]:
    """Losses that differ a hundredfold by the timestep, of which the LoRA has ``share``, give or take a half."""
    rng, watch = random.Random(seed), 0
    while True:
        base, watch = 10 ** rng.uniform(-2.5, 0), watch + 1
        measured = base if watch % every == 0 else float("nan")
        grad = 10 ** rng.uniform(-2, 0)
        yield Facts(watch, base * share * rng.uniform(0.5, 1.5), measured, base * rng.uniform(0.5, 2), grad, 20.0, 1.0)


def test_noise_of_single_images_is_nothing() -> None:
    for seed in range(50):
        assert told(facts for facts, _ in zip(noisy(seed, 1.0), range(300), strict=False)) == []


def test_a_loss_far_above_the_base_models_is_told_within_ten_steps_with_where_it_began() -> None:
    for seed in range(50):
        source, bad = noisy(seed, 0.9), noisy(seed, 8.0)
        steps = [next(source) for _ in range(40)] + [next(bad) for _ in range(20)]
        step, finding = first(steps)
        assert finding.kind == "loss" and 41 <= step <= 50 and finding.good is not None
        assert 38 <= finding.good <= 44 and "Lower the learning rate." in str(finding)


def test_a_loss_above_what_is_expected_asks_for_an_exact_comparison_and_proves_nothing_itself() -> None:
    watch = Watch()
    assert list(watch.look(replace(GOOD, baseline=float("nan"), loss=0.5))) == [] and watch.suspicious
    assert list(watch.look(replace(GOOD, step=2))) == [] and not watch.suspicious
    assert list(watch.look(replace(GOOD, step=3, loss=20 * GOOD.baseline))) == [] and watch.suspicious
    settled = Watch()
    for step in range(1, 30):
        assert list(settled.look(replace(GOOD, step=step))) == [] and not settled.suspicious
    assert list(settled.look(replace(GOOD, step=30, loss=3 * GOOD.baseline))) == [] and settled.suspicious, "one alone"
    watch = Watch()
    unknown = replace(GOOD, baseline=float("nan"), expected=float("nan"), loss=9.0)
    assert list(watch.look(unknown)) == [] and not watch.suspicious
    for step in range(3, 200):
        assert list(watch.look(replace(GOOD, step=step, baseline=float("nan"), loss=9.0))) == []


def test_a_loss_far_above_in_a_long_run_that_is_rarely_compared_is_told_within_ten_steps() -> None:
    watch = Watch()
    for step in range(1, 120):
        measured = watch.suspicious or step % 50 == 0
        loss = 0.1 if step < 60 else 0.9
        found = list(watch.look(Facts(step, loss, 0.1 if measured else float("nan"), 0.1, 0.2, 20.0, 1.0)))
        if found:
            assert 60 < step <= 69 and found[0].good is not None and 55 <= found[0].good <= 60
            return
    raise AssertionError("nothing was told")


def test_a_hump_at_the_beginning_is_nothing() -> None:
    """As of LoRA+ at a high rate, which is at half the base model's loss forty steps later."""
    ratios = [1.0, 1.06, 3.9, 6.0, 0.96, 1.65] + [0.9] * 50
    base = [1.3, 0.05, 0.01, 0.02, 0.4, 0.1] + [0.1] * 50
    assert told(Facts(1, r * b, b, b, 0.2, 20.0, 1.0) for r, b in zip(ratios, base, strict=True)) == []


def test_gradients_that_explode_are_told_and_spikes_are_not() -> None:
    calm = [replace(GOOD, grad_norm=10 ** random.Random(n).uniform(-2, 0)) for n in range(60)]
    assert told([*calm, *[replace(GOOD, grad_norm=1e6)] * 4, *calm]) == []
    step, finding = first([*calm, *[replace(GOOD, grad_norm=1e6)] * 5])
    assert step == 65 and finding.kind == "gradient" and finding.good == 59


def test_weights_that_grow_tenfold_within_twenty_steps_are_told_and_slow_growth_is_not() -> None:
    assert told(replace(GOOD, weight_norm=20 * 1.1**n) for n in range(300)) == []
    step, finding = first(replace(GOOD, weight_norm=20 if n < 30 else 20 * 1.3 ** (n - 29)) for n in range(100))
    assert finding.kind == "weights" and step == 39 and finding.good == 31


def test_weights_that_are_all_zero_at_first_may_grow() -> None:
    ramp = [replace(GOOD, step=n + 1, weight_norm=0.01 * n) for n in range(40)]
    watch = Watch(from_zero=True)
    assert [finding for facts in ramp for finding in watch.look(facts)] == []


def test_steps_that_fp16_skips_are_told_once_they_are_many_in_a_row() -> None:
    skipped = replace(GOOD, skipped=True, grad_norm=float("inf"))
    assert told([*[skipped] * (MOST_SKIPPED - 1), GOOD] * 9) == []
    [(step, finding)] = told([GOOD, *[skipped] * 20])
    assert step == 1 + MOST_SKIPPED and finding.kind == "skipped" and finding.good is None


def test_steps_that_fp16_lost_are_counted_over_a_break_and_told_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply = Update.apply

    def losing(update: Update) -> dict[str, float]:
        rates = apply(update)
        update.skipped = update.scheduler.last_epoch % 2 == 0
        return rates

    monkeypatch.setattr(Update, "apply", losing)
    run(tmp_path, stop_at=9)
    _, events = run(tmp_path, resume=True)
    assert events[-1].notices[-1].startswith("10 of 20 steps changed nothing, because fp16 gradients overflowed")
