"""How much a test may look at: counted in rows of the UNet, and never more than is allowed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.evaluation.cost import DEPTHS, IMAGES, SHARE, choose, cost, run_rows, seconds
from lora_trainer.evaluation.events import Measuring, TestPlanned
from lora_trainer.evaluation.examine import Findings, examine
from lora_trainer.evaluation.plan import TestPlan
from tests.support.runs import run
from tests.support.tiny_host import TinyHost

PLAN = TestPlan("zork").completed(512)


def facts(steps: int, batch: int = 1) -> dict[str, Any]:
    return {"steps": steps, "config": {"train_batch_size": batch, "gradient_accumulation_steps": 1}}


@pytest.mark.parametrize("files", [1, 2, 6, 11])
@pytest.mark.parametrize("steps", [0, 100, 1500, 10_000, 100_000])
def test_the_default_test_stays_within_a_quarter_of_the_run_or_sixty_images(files: int, steps: int) -> None:
    depth = choose(PLAN, files, facts(steps))
    allowed = max(IMAGES * 2 * PLAN.request.steps, SHARE * 3 * steps)
    assert cost(PLAN, files, depth).total <= allowed


def test_a_long_run_is_looked_at_as_closely_as_was_calibrated() -> None:
    assert choose(PLAN, 6, facts(10_000, 4)) == DEPTHS[0]
    assert choose(PLAN, 6, {}) == choose(PLAN, 6, facts(1)) == DEPTHS[-1]
    costs = [cost(PLAN, 6, depth).total for depth in DEPTHS]
    assert costs == sorted(costs, reverse=True) and len(set(costs)) == len(costs)


@pytest.mark.parametrize(
    ("options", "depth"),
    [({"strengths": (0.0, 1.0)}, DEPTHS[1]), ({"seeds": (3,), "seeds_chosen": True}, DEPTHS[-1])],
)
def test_what_is_counted_is_what_the_model_computes(tmp_path: Path, depth: Any, options: dict[str, Any]) -> None:
    """Rows that pass through the UNet while three files are measured, against the estimate."""
    run(tmp_path, max_train_epochs=3, save_every_n_epochs=1, measure_at_saves=False)
    host, rows = TinyHost(tmp_path / "loras"), [0]
    predict = host.model.predict

    def counting(noisy: Any, *more: Any) -> Any:
        rows[0] += len(noisy)
        return predict(noisy, *more)

    host.model.predict = counting  # type: ignore[method-assign]
    plan = replace(TestPlan("zork"), **options).completed(64)
    others = sorted((tmp_path / "loras").glob("zork-*.safetensors"))
    record = {"dataset": str(tmp_path / "data"), "config": {}}
    for _ in examine(host, tmp_path / "loras/zork.safetensors", others, plan, record, Findings(), depth=depth):
        pass
    assert 0.4 * cost(plan, 3, depth).measuring <= rows[0] <= 1.03 * cost(plan, 3, depth).measuring


def test_no_measures_cost_nothing_and_chosen_seeds_stay() -> None:
    assert cost(replace(PLAN, measures=False), 3, DEPTHS[0]).measuring == 0
    many = replace(PLAN, seeds=(1, 2, 3), seeds_chosen=True)
    assert cost(many, 1, DEPTHS[-1]).images == 3 * (len(PLAN.strengths) + 2 * len(PLAN.integration))


@pytest.mark.parametrize("broken", [{}, {"steps": "x"}, {"config": 3, "steps": 4}, {**facts(5), "steps": None}])
def test_a_run_that_says_nothing_has_no_work(broken: dict[str, Any]) -> None:
    assert run_rows(broken) == 0 and seconds(cost(PLAN, 1, DEPTHS[0]), broken, [{"seconds": 1.0}]) is None


def test_time_follows_the_steps() -> None:
    """A step of four images is twelve rows; so much work at half a second for twelve."""
    work = cost(PLAN, 3, DEPTHS[0])
    assert seconds(work, facts(100, 4), [{"seconds": 0.5}, {"seconds": 90.0}, {"seconds": 0.4}]) == pytest.approx(
        work.total * 0.5 / 12
    )
    assert seconds(work, facts(100, 4), [{}]) is None


def test_the_share_that_is_done_rises_to_the_whole() -> None:
    planned = TestPlanned(images=30, work=120, seconds=200.0)
    assert planned.share(Measuring(5, 10, Path("x"), 1.0)) == pytest.approx(0.375)
    assert planned.share(Measuring(10, 10, Path("x"), 1.0)) == pytest.approx(0.75)
    assert "30 images" in planned.sentence and "120 images" in planned.sentence and "3 min" in planned.sentence
