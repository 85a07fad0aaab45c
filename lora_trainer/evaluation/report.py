"""What the test found, for people and programs: ``report.json``, the grids, and the page that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_trainer import __version__
from lora_trainer.evaluation.events import TestedImage, TestFinished
from lora_trainer.evaluation.examine import Findings
from lora_trainer.evaluation.judge import Judgement, judge, worth
from lora_trainer.evaluation.page import render_page
from lora_trainer.evaluation.plan import TestPlan
from lora_trainer.evaluation.prompts import strength_text
from lora_trainer.evaluation.sheets import write_grids
from lora_trainer.evaluation.trained import read_log, read_run
from lora_trainer.files import write_json, write_text
from lora_trainer.training.folder import REPORTS

if TYPE_CHECKING:
    from lora_trainer.evaluation.lora_file import SavedPoint
    from lora_trainer.hosts.base import ModelInfo

VERSION = 2  # of report.json; docs/report.md describes it
SMALL_PRINT = (
    "The figures were calibrated on a small practice world, where three verdicts in four were right (docs/verdict.md). "
    "Files that copy their training images weren't recognised there: look whether the same backgrounds come back. How "
    "well all this carries over to large checkpoints is not known yet: trust your eyes."
)


@dataclass(frozen=True)
class Result:
    """What a test was of, and what it measured."""

    lora: Path
    info: ModelInfo
    plan: TestPlan  # completed
    points: Sequence[SavedPoint]
    output: Path
    found: Findings

    @property
    def files(self) -> list[str]:
        """The files in the order of training, the main one last."""
        return [*(point.path.name for point in self.points), self.lora.name]


def write_report(result: Result, made: Sequence[TestedImage], stopped: bool) -> TestFinished:
    """Judge, and write grids, JSON and page into the run's folder."""
    output = result.output
    grids = write_grids(result.lora, result.plan, made, output)
    report = _report(result, made, stopped, grids)
    page = output / "report.html"
    write_json(output / "report.json", report)
    write_text(page, render_page(report, output, read_log(output / "log.jsonl"), read_run(output / "run.json")))
    return TestFinished(result.lora, output / "report.json", page, tuple(grids), len(made), stopped)


def write_so_far(result: Result, made: Sequence[TestedImage]) -> None:
    """``report.json`` while the test goes on, for the tab; an earlier test's page and grids are of other pictures."""
    for name in REPORTS:
        if name != "report.json":
            (result.output / name).unlink(missing_ok=True)
    write_json(result.output / "report.json", _report(result, made, True, []))


def _report(result: Result, made: Sequence[TestedImage], stopped: bool, grids: Sequence[Path]) -> dict[str, Any]:
    output, plan, lora = result.output, result.plan, result.lora
    judgement = judge(result.found, result.files)
    assert plan.strength_prompt is not None
    return {
        "version": VERSION,
        "program": __version__,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "lora": lora.name,
        "name": lora.stem,
        "base_model": result.info.checkpoint,
        "family": result.info.family,
        "trigger": plan.trigger,
        "subject": plan.subject.name,
        "strengths": [{"strength": s, **_figures(judgement, lora.name, s)} for s in plan.strengths],
        "epochs": [_file_row(judgement, point.path.name, point.label) for point in result.points]
        + ([_file_row(judgement, lora.name, "the last")] if result.points else []),
        "cells": [asdict(cell) for cell in result.found.cells.values()],
        "recommended": asdict(judgement.recommended),
        "verdict": judgement.verdict,
        "evidence": [*judgement.evidence, *_unchanged(made)],
        "advice": list(judgement.advice),
        "missing": list(result.found.missing),
        "small_print": SMALL_PRINT,
        "prompts": {
            "strength": plan.strength_prompt.at(lora.stem, plan.preferred_strength),
            "integration": [prompt.at(lora.stem, prompt.strength) for prompt in plan.integration],
            "without_trigger": list(plan.subject.class_prompts()),
        },
        "settings": {
            key: getattr(plan.request, key)
            for key in ("width", "height", "steps", "cfg_scale", "sampler", "negative_prompt")
        },
        "seeds": list(plan.seeds),
        "stopped": stopped,
        "grids": [grid.name for grid in grids],
        "images": [_image_row(image, lora, output) for image in made],
    }


def _figures(judgement: Judgement, file: str, strength: float) -> dict[str, Any]:
    """The figures of a file at a strength, as report.json has them: null and a reason where there are none."""
    figure = judgement.figures.get((file, strength))
    if figure is None:
        why = "the base model itself" if strength == 0 else "not measured"
        return {"accuracy": None, "flexibility": None, "artifacts": None, "reason": why}
    values = asdict(figure)
    if figure.accuracy is None:
        values["reason"] = "accuracy was not measured: the training images are not at hand"
    elif figure.artifacts is None:
        values["reason"] = "artifacts were not measured: no pictures were made at this strength"
    return values


def _file_row(judgement: Judgement, file: str, label: str) -> dict[str, Any]:
    """A saved file at its best strength."""
    mine = [key for key in judgement.figures if key[0] == file]
    best = max(mine, key=lambda key: worth(judgement.figures[key]), default=(file, 0.0))
    return {"file": file, "label": label, "strength": best[1], "verdict": judgement.files.get(file, ""),
            **_figures(judgement, *best)}  # fmt: skip


def _unchanged(made: Sequence[TestedImage]) -> list[str]:
    """Whether the pictures at the highest strength are the base model's own."""
    sweep = {(image.shot.strength, image.shot.seed): image.image for image in made if image.shot.kind == "strength"}
    most = max((strength for strength, _ in sweep), default=0.0)
    pairs = [(image, sweep.get((0.0, seed))) for (strength, seed), image in sweep.items() if strength == most]
    if not most or any(base is None or image.tobytes() != base.tobytes() for image, base in pairs):
        return []
    return [f"At strength {strength_text(most)} every image equals the base model's: this LoRA has no effect."]


def _image_row(image: TestedImage, lora: Path, output: Path) -> dict[str, Any]:
    shot = image.shot
    return {
        "path": image.path.relative_to(output).as_posix(),
        "kind": shot.kind,
        "file": shot.file.name,
        "label": shot.label,
        "prompt": image.prompt,
        "case": shot.prompt.at(lora.stem, shot.prompt.strength),  # the same for all pictures to be compared
        "seed": shot.seed,
        "strength": shot.strength,
        "infotext": image.infotext,
    }
