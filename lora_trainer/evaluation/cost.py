"""How much work a test is, counted in rows that pass through the UNet, and how closely it may look for that.

A test that nobody has asked more of takes at most a quarter of the run's own work, or that of 60 images, whichever is
more. A training step is three rows for each of its images: forward, and twice that backward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lora_trainer.evaluation.plan import EPOCH_STRENGTHS, TestPlan
from lora_trainer.measures.denoising import DRIFT_TIMESTEPS, GAIN_TIMESTEPS

IMAGES, SHARE = 60, 1 / 4
SAMPLED = 20  # rows of one of the measures' own pictures: ten steps with guidance
WEAKEST = 0.3  # strength that is measured
STEP = 3  # rows of a training step for each image


@dataclass(frozen=True)
class Depth:
    """How closely a test looks.

    coarse: strengths at which every file is measured.
    fine: so many of the best files are measured at every strength, and shown beside the last one.
    looks: files of which the measures make pictures.
    images: training images that are measured; ``known``: the base model's own pictures.
    short: pictures of the trigger alone.
    seeds: of those that the plan has, if nobody chose them.
    """

    coarse: tuple[float, ...]
    fine: int
    looks: int
    images: int
    known: int
    short: int
    seeds: int


DEPTHS = (  # the first is the one that was calibrated
    Depth((0.7, 1.0), 3, 6, 8, 8, 4, 2),
    Depth((0.7, 1.0), 2, 3, 8, 8, 4, 2),
    Depth((1.0,), 2, 2, 6, 6, 4, 2),
    Depth((1.0,), 1, 1, 4, 4, 2, 1),
)


@dataclass(frozen=True)
class Cost:
    """Of a test at a depth, in rows."""

    image: int  # one image
    images: int  # all of them
    measuring: int

    @property
    def total(self) -> int:
        """Both."""
        return self.images * self.image + self.measuring

    @property
    def as_images(self) -> int:
        """The whole test, as if it made nothing but images."""
        return -(-self.total // self.image)


def choose(plan: TestPlan, files: int, run: Mapping[str, Any]) -> Depth:
    """The closest look that the work allows, or the least close one; ``files`` with the main one."""
    allowed = max(IMAGES * cost(plan, files, DEPTHS[-1]).image, SHARE * run_rows(run))
    return next((depth for depth in DEPTHS if cost(plan, files, depth).total <= allowed), DEPTHS[-1])


def cost(plan: TestPlan, files: int, depth: Depth) -> Cost:
    """The work of a completed plan at a depth."""
    request = plan.request
    image = request.steps * (1 if request.cfg_scale == 1 else 2)
    strengths = measured(plan)
    seeds = len(plan.seeds) if plan.seeds_chosen else min(depth.seeds, len(plan.seeds))
    shown = min(files, depth.fine + 1) if files > 1 and plan.epochs else 0
    images = seeds * (len(plan.strengths) + 2 * len(plan.integration)) + shown * len(EPOCH_STRENGTHS)
    if not plan.measures or not strengths:
        return Cost(image, images, 0)
    cell = depth.images * len(GAIN_TIMESTEPS) + depth.known * len(DRIFT_TIMESTEPS)
    coarse = nearest(strengths, depth.coarse)
    cells = 1 + files * len(coarse) + min(files, depth.fine + 1) * (len(strengths) - len(coarse))
    looks = 1 + 2 * min(files, depth.looks + 1)  # of the base model; of each file at its best strength and at 1
    return Cost(image, images, cells * cell + (depth.known + looks * (depth.known + depth.short)) * SAMPLED)


def run_rows(run: Mapping[str, Any]) -> float:
    """The work of the training itself; 0 if it isn't known."""
    config = run.get("config")
    try:
        batch = int(config["train_batch_size"]) * int(config["gradient_accumulation_steps"])  # type: ignore[index]
        return STEP * batch * float(run["steps"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return 0.0


def seconds(work: Cost, run: Mapping[str, Any], log: Sequence[Mapping[str, Any]]) -> float | None:
    """How long a test will take, by how long the training's steps took; None if that isn't known."""
    taken = sorted(row["seconds"] for row in log if isinstance(row.get("seconds"), (int, float)))
    rows, steps = run_rows(run), run.get("steps")
    if not taken or not rows or not isinstance(steps, int):
        return None
    return work.total * taken[len(taken) // 2] / (rows / steps)


def measured(plan: TestPlan) -> list[float]:
    """The strengths of a plan that are measured: below some, a LoRA does next to nothing."""
    strengths = [strength for strength in plan.strengths if strength > 0]
    return [strength for strength in strengths if strength >= WEAKEST] or strengths[-1:]


def nearest(strengths: Sequence[float], wanted: Sequence[float]) -> list[float]:
    """Of the strengths of a plan, those nearest to the wanted ones."""
    return sorted({min(strengths, key=lambda one: abs(one - each)) for each in wanted}) if strengths else []
