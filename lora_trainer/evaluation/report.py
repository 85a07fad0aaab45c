"""What the test found, for people and programs: ``report.json``, the grids, and the page that shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_trainer import __version__
from lora_trainer.evaluation.events import TestedImage, TestFinished
from lora_trainer.evaluation.judge import judge
from lora_trainer.evaluation.page import render_page
from lora_trainer.evaluation.plan import TestPlan
from lora_trainer.evaluation.prompts import strength_text
from lora_trainer.evaluation.sheets import write_grids
from lora_trainer.evaluation.trained import read_log, read_run
from lora_trainer.files import write_json, write_text

if TYPE_CHECKING:
    from lora_trainer.evaluation.lora_file import SavedPoint
    from lora_trainer.hosts.base import ModelInfo

VERSION = 1  # of report.json
NOT_MEASURED = "not measured: this test makes images, but doesn't compare them with the dataset"


@dataclass(frozen=True)
class Measured:
    """A value with its 95 % interval, 0-100."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Scores:
    """How good one file at one strength is; what wasn't measured is None and ``reason`` says why."""

    accuracy: Measured | None = None
    flexibility: Measured | None = None
    artifacts: Measured | None = None
    reason: str = NOT_MEASURED

    def to_dict(self) -> dict[str, Any]:
        """As report.json has it; the reason only where something is missing."""
        values = asdict(self)
        if None not in (self.accuracy, self.flexibility, self.artifacts):
            values.pop("reason")
        return values


def write_report(
    lora: Path,
    info: ModelInfo,
    plan: TestPlan,
    made: Sequence[TestedImage],
    points: Sequence[SavedPoint],
    output: Path,
    stopped: bool,
    scores: Mapping[tuple[str, float], Scores] | None = None,
) -> TestFinished:
    """Write grids, JSON and page into ``output``.

    Args:
        plan: a completed plan.
        scores: by (file name, strength), where something was measured.
    """
    scores = scores or {}
    grids = write_grids(lora, plan, made, output)
    verdict = judge(made, output)
    assert plan.strength_prompt is not None
    report: dict[str, Any] = {
        "version": VERSION,
        "program": __version__,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "lora": lora.name,
        "name": lora.stem,
        "base_model": info.checkpoint,
        "family": info.family,
        "trigger": plan.trigger,
        "strengths": [
            {"strength": strength, **scores.get((lora.name, strength), Scores()).to_dict()}
            for strength in plan.strengths
        ],
        "epochs": [
            {
                "file": point.path.name,
                "label": point.label,
                **scores.get((point.path.name, plan.preferred_strength), Scores()).to_dict(),
            }
            for point in points
        ],
        "recommended": {
            "file": lora.name,
            "strength": plan.preferred_strength,
            "why": f"Nothing was measured: this is the last file, at {strength_text(plan.preferred_strength)}, a usual "
            "strength to start with. Compare the images and take the lowest strength at which your subject is right.",
        },
        "verdict": verdict.verdict,
        "evidence": list(verdict.evidence),
        "advice": list(verdict.advice),
        "prompts": {
            "strength": plan.strength_prompt.at(lora.stem, plan.preferred_strength),
            "integration": [prompt.at(lora.stem, prompt.strength) for prompt in plan.integration],
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
    page = output / "report.html"
    write_json(output / "report.json", report)
    write_text(page, render_page(report, output, read_log(output / "log.jsonl"), read_run(output / "run.json")))
    return TestFinished(lora, output / "report.json", page, tuple(grids), len(made), stopped)


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
