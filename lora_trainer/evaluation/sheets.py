"""The three grids of a test: strengths, other contexts, files saved on the way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lora_trainer.evaluation.events import TestedImage
from lora_trainer.evaluation.grid import Labels, labelled_grid
from lora_trainer.evaluation.plan import TestPlan
from lora_trainer.evaluation.prompts import Prompt, strength_text
from lora_trainer.files import replaced

if TYPE_CHECKING:
    from PIL.Image import Image


Key = tuple[str, Prompt, str, int, float]  # kind, prompt, label, seed, strength


def write_grids(lora: Path, plan: TestPlan, made: Sequence[TestedImage], output: Path) -> list[Path]:
    """Draw ``strength.png``, ``integration.png`` and ``epochs.png`` into ``output``, each if it has pictures."""
    pictures: dict[Key, Image] = {
        (shot.kind, shot.prompt, shot.label, shot.seed, shot.strength): image.image
        for image in made
        for shot in (image.shot,)
    }
    written = []
    for kind, name, draw in (
        ("strength", "strength.png", strength_grid),
        ("integration", "integration.png", integration_grid),
        ("epoch", "epochs.png", epoch_grid),
    ):
        if any(key[0] == kind for key in pictures):
            with replaced(output / name) as temporary:
                draw(lora.stem, plan, pictures).save(temporary, format="PNG")
            written.append(output / name)
    return written


def strength_grid(name: str, plan: TestPlan, pictures: dict[Key, Image]) -> Image:
    """A column for each strength, a row for each seed."""
    prompt = _prompt(plan)
    columns = [strength_text(strength) for strength in plan.strengths]
    rows = [
        [pictures.get(("strength", prompt, strength_text(strength), seed, strength)) for strength in plan.strengths]
        for seed in plan.seeds
    ]
    asked = prompt.text.replace("{lora}", f"<lora:{name}:strength>")
    return labelled_grid(rows, Labels(f"{name}: strength", columns, _seeds(plan), asked, "strength"))


def integration_grid(name: str, plan: TestPlan, pictures: dict[Key, Image]) -> Image:
    """A column for each prompt; two rows for each seed, without and with the LoRA."""
    rows, labels = [], []
    for seed in plan.seeds:
        for label, share in (("without the LoRA", 0.0), ("with the LoRA", 1.0)):
            labels.append(f"{label}, seed {seed}")
            rows.append(
                [
                    pictures.get(("integration", p, strength_text(p.strength * share), seed, p.strength * share))
                    for p in plan.integration
                ]
            )
    columns = [prompt.at(name, prompt.strength) for prompt in plan.integration]
    return labelled_grid(rows, Labels(f"{name}: in other contexts", columns, labels))


def epoch_grid(name: str, plan: TestPlan, pictures: dict[Key, Image]) -> Image:
    """A column for each file saved on the way and one for the last, a row for each strength."""
    prompt = _prompt(plan)
    labels = list(dict.fromkeys(key[2] for key in pictures if key[0] == "epoch"))
    strengths = sorted({key[4] for key in pictures if key[0] == "epoch"})
    seed = plan.seeds[0]
    rows = [[pictures.get(("epoch", prompt, label, seed, strength)) for label in labels] for strength in strengths]
    asked = prompt.text.replace("{lora}", f"<lora:{name}:strength>")
    return labelled_grid(rows, Labels(f"{name}: saved epochs", labels, [strength_text(s) for s in strengths], asked))


def _prompt(plan: TestPlan) -> Prompt:
    assert plan.strength_prompt is not None  # completed plans have one
    return plan.strength_prompt


def _seeds(plan: TestPlan) -> list[str]:
    return [f"seed {seed}" for seed in plan.seeds]
