"""Slow steps are told after five in a row, and nothing else is."""

from __future__ import annotations

import random
from collections.abc import Iterable

from lora_trainer.training.watch.facts import Facts
from lora_trainer.training.watch.pace import IN_A_ROW, Pace


def told(seconds: Iterable[float]) -> list[tuple[int, str]]:
    """The steps at which something is told, and what."""
    pace = Pace()
    found = ((step, pace.look(Facts(step, 0.1, seconds=one))) for step, one in enumerate(seconds, 1))
    return [(step, str(finding)) for step, finding in found if finding]


def test_spilling_memory_is_told_within_five_steps_and_once() -> None:
    [(step, text)] = told([1.0] * 40 + [4.0] * 60)
    assert step == 45 and text.startswith("Since step 41 a step takes 4 s, 4 times as long as before. ")
    assert "gradient_checkpointing" in text


def test_what_is_slow_is_usual_from_then_on() -> None:
    assert [step for step, _ in told([1.0] * 20 + [4.0] * 40 + [1.0] * 40 + [20.0] * 40)] == [25, 105]


def test_the_first_steps_may_be_slow() -> None:
    assert told([30.0, 20.0, 9.0] + [1.0] * 50) == []


def test_a_slow_step_now_and_then_is_nothing() -> None:
    """After each sample picture the UNet comes back to the card; another program runs for a moment."""
    assert told([50.0 if step % 7 == 0 else 1.0 for step in range(200)]) == []
    assert told([1.0] * 30 + [9.0] * (IN_A_ROW - 1) + [1.0] * 30) == []


def test_pictures_of_very_different_sizes_are_nothing() -> None:
    for seed in range(20):
        rng = random.Random(seed)
        assert told(rng.choice([1.0, 1.3, 2.0, 4.0, 8.0]) * rng.uniform(0.9, 1.1) for _ in range(400)) == []


def test_a_step_just_under_three_times_as_long_is_nothing() -> None:
    assert told([1.0] * 30 + [2.9] * 100) == []
