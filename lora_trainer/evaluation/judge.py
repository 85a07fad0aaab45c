"""The verdict on a LoRA: what the evidence says, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import ImageChops, ImageStat

from lora_trainer.evaluation.events import TestedImage
from lora_trainer.evaluation.prompts import strength_text
from lora_trainer.evaluation.trained import read_log


@dataclass(frozen=True)
class Verdict:
    """What the evidence says, and what to do about it."""

    verdict: str  # undertrained, good, overtrained, unstable, not enough evidence
    evidence: tuple[str, ...]
    advice: tuple[str, ...]


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
    evidence.append("Accuracy, flexibility and artefacts were not measured.")
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
