"""What the test found, for people and programs: ``report.json``, the grids, and the page that shows them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import ImageChops, ImageStat

from lora_trainer import __version__
from lora_trainer.evaluation.page import render_page
from lora_trainer.evaluation.prompts import strength_text
from lora_trainer.evaluation.sheets import write_grids
from lora_trainer.files import write_json, write_text

if TYPE_CHECKING:
    from lora_trainer.evaluation.lora_file import SavedPoint
    from lora_trainer.evaluation.sweep import TestedImage, TestFinished, TestPlan
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


@dataclass(frozen=True)
class Verdict:
    """What the evidence says, and what to do about it."""

    verdict: str  # undertrained, good, overtrained, unstable, not enough evidence
    evidence: tuple[str, ...]
    advice: tuple[str, ...]


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
    from lora_trainer.evaluation.sweep import TestFinished

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


def judge(made: Sequence[TestedImage], output: Path) -> Verdict:
    """What pictures alone can show: whether the LoRA changes anything. More than that they are not asked."""
    evidence = []
    advice = ["Compare the images yourself: is it your subject, does it follow the prompt, is anything distorted?"]
    changes = {strength: change for strength in _strengths(made) if (change := mean_change(made, strength)) is not None}
    if changes:
        strength = max(changes)
        if changes[strength] == 0:
            evidence.append(
                f"At strength {strength_text(strength)} every image equals the base model's: this LoRA has no effect."
            )
            advice.insert(0, "Check that the LoRA was made for this base model and that its learning rates weren't 0.")
        else:
            listed = ", ".join(f"{strength_text(s)}: {change:.1f}" for s, change in sorted(changes.items()))
            evidence.append(f"Mean difference from strength 0, on a scale of 0 to 255: {listed}.")
    losses = [row["loss"] for row in read_log(output / "log.jsonl")]
    if len(losses) >= 20:
        tenth = len(losses) // 10
        first, last = sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth
        evidence.append(
            f"Mean training loss: {first:.4f} in the first tenth of the steps, {last:.4f} in the last; "
            "it depends mostly on the noise that was drawn and says little about quality."
        )
    evidence.append("Likeness, flexibility and artefacts were not measured.")
    return Verdict("not enough evidence", tuple(evidence), tuple(advice))


def _strengths(made: Sequence[TestedImage]) -> list[float]:
    return sorted({image.shot.strength for image in made if image.shot.kind == "strength" and image.shot.strength})


def mean_change(made: Sequence[TestedImage], strength: float) -> float | None:
    """Mean absolute difference (0-255) of the sweep's pictures at ``strength`` to those at 0 with the same seed."""
    sweep = {
        (image.shot.strength, image.shot.seed): image.image.convert("RGB")
        for image in made
        if image.shot.kind == "strength"
    }
    pairs = [(image, sweep.get((0.0, seed))) for (at, seed), image in sweep.items() if at == strength]
    means = [
        sum(ImageStat.Stat(ImageChops.difference(image, base)).mean) / 3 for image, base in pairs if base is not None
    ]
    return sum(means) / len(means) if means else None


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of ``log.jsonl`` that have a step and a loss; empty for a LoRA that was trained elsewhere."""
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for line in lines:
        row = _json(line)
        if isinstance(row, dict) and isinstance(row.get("loss"), (int, float)) and "step" in row:
            rows.append(row)
    return rows


def read_run(path: Path) -> dict[str, Any]:
    """``run.json``, or an empty dict if there is none."""
    try:
        run = _json(path.read_text(encoding="utf-8"))
    except OSError:
        return {}
    return run if isinstance(run, dict) else {}


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:  # a line that was being written when the power failed
        return None
