"""The verdict from figures: every kind of LoRA, the recommendation, and words that the figures support."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lora_trainer.evaluation import limits
from lora_trainer.evaluation.choosing import best_cell, ranked_files
from lora_trainer.evaluation.examine import Findings
from lora_trainer.evaluation.judge import GOOD, OVER, UNDER, UNKNOWN, UNSTABLE, judge
from lora_trainer.evaluation.looking import Look
from lora_trainer.evaluation.measuring import Cell
from lora_trainer.evaluation.scores import accuracy, integrity, scores
from lora_trainer.measures.denoising import DRIFT_CAP
from lora_trainer.measures.interval import Estimate


def exactly(value: float) -> Estimate:
    return Estimate(value, value, value)


def cell(gain: float | None, drift: float, strength: float = 1.0, file: str = "a") -> Cell:
    return Cell(file, strength, exactly(drift), exactly(0.5), 0.05,
                None if gain is None else exactly(gain))  # fmt: skip


HIGH, LOW = 9.0, 0.0  # gains that are surely learnt, and surely not
SAFE, HARMFUL = 0.01, 0.9  # drifts


def found(*cells: Cell, looks: dict[tuple[str, float], Look] | None = None) -> Findings:
    return Findings({(one.file, one.strength): one for one in cells}, looks or {})


@pytest.mark.parametrize(
    ("cells", "verdict"),
    [
        ([cell(LOW, SAFE, 0.6), cell(LOW, SAFE)], UNDER),
        ([cell(LOW, SAFE, 0.6), cell(HIGH, SAFE)], GOOD),
        ([cell(HIGH, SAFE, 0.6), cell(HIGH, HARMFUL)], GOOD),  # there is a strength that does
        ([cell(LOW, SAFE, 0.6), cell(HIGH, HARMFUL)], OVER),
        ([cell(HIGH, HARMFUL, 0.6), cell(HIGH, HARMFUL)], OVER),
        ([cell(-0.5, HARMFUL), cell(-0.1, HARMFUL, 0.6)], UNSTABLE),
        ([cell(None, SAFE)], UNKNOWN),
        ([], UNKNOWN),
    ],
)
def test_verdicts(cells: list[Cell], verdict: str) -> None:
    judged = judge(found(*cells), ["a"])
    assert judged.verdict == verdict
    assert judged.advice and judged.evidence


def test_burnt_pictures_are_unstable_whatever_was_learnt() -> None:
    look = Look(loudness=limits.LOUD * 1.1)
    assert judge(found(cell(HIGH, SAFE), looks={("a", 1.0): look}), ["a"]).verdict == UNSTABLE


def test_likeness_changes_the_accuracy_both_ways() -> None:
    middle = cell(1.5, SAFE)
    like, unlike = (scores(middle, Look(1.0, likeness=exactly(value))) for value in (1.5, -1.0))
    assert like.accuracy and unlike.accuracy and like.accuracy.value > unlike.accuracy.value
    assert like.parts["likeness"] == 1.5 and "likeness" not in scores(middle, None).parts


def test_figures_rise_with_what_they_are_made_of() -> None:
    assert accuracy(0.5) < accuracy(1.5) < accuracy(3.0)
    assert integrity(0.3) < integrity(0.15) < integrity(0.05)
    assert accuracy(9.0) > limits.LEARNT and accuracy(0.0) < limits.NOT_LEARNT
    assert integrity(0.01) > limits.INTACT and integrity(0.9) < limits.DAMAGED


def test_the_run_is_told_from_its_first_file_to_its_last() -> None:
    made = found(cell(LOW, SAFE, file="1"), cell(HIGH, SAFE, file="2"), cell(HIGH, HARMFUL, file="3"))
    judged = judge(made, ["1", "2", "3"])
    assert judged.verdict == OVER
    assert judged.evidence[-1] == "The first saved file is undertrained; good from 2 on; overtrained from 3 on."
    assert judge(found(cell(LOW, SAFE, file="1"), cell(LOW, SAFE, file="2")), ["1", "2"]).evidence[-1] == (
        "All 2 saved files are undertrained."
    )
    assert judged.advice[0] == "Use 2 instead, which is good."
    assert (judged.recommended.file, judged.recommended.strength) == ("2", 1.0)


def test_the_earlier_file_and_the_weaker_strength_win_a_tie() -> None:
    made = found(cell(HIGH, SAFE, 1.0, "1"), cell(HIGH, SAFE, 0.8, "2"), cell(HIGH, SAFE, 0.8, "1"))
    best = judge(made, ["1", "2"]).recommended
    assert (best.file, best.strength, best.sure) == ("1", 0.8, "not very sure")
    assert "2 at 0.8 is as good" in best.why


def test_wide_intervals_make_a_guess() -> None:
    wide = replace(cell(1.5, SAFE), gain=Estimate(1.5, -1.0, 5.0))
    assert judge(found(wide), ["a"]).recommended.sure == "a guess"
    assert judge(found(cell(HIGH, SAFE)), ["a"]).recommended.sure == "fairly sure"


def test_without_training_images_nothing_is_claimed() -> None:
    judged = judge(found(cell(None, SAFE)), ["a"])
    assert judged.recommended.strength == 0.8 and judged.recommended.sure == "a guess"
    assert "accuracy" not in judged.evidence[0]


def test_a_lora_of_zeros_is_named() -> None:
    made = found(replace(cell(LOW, 0.0), weights=0.0))
    assert any("no effect" in line for line in judge(made, ["a"]).evidence)


def test_the_cap_on_drift_decides_before_the_gain() -> None:
    near, far = cell(2.0, DRIFT_CAP, 0.8), cell(3.0, DRIFT_CAP * 1.01, 1.0)
    assert best_cell([near, far]) == near and best_cell([far]) == far
    assert ranked_files([replace(far, file="x"), replace(near, file="y")]) == ["y", "x"]
