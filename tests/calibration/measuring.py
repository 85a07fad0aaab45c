"""The measures' round: what the trainer's own measures say of every saved file at every strength, without the truth."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from lora_trainer.demo import world
from lora_trainer.evaluation.looking import Eyes
from lora_trainer.evaluation.material import MOST_IMAGES, Material
from lora_trainer.evaluation.measuring import Bench
from lora_trainer.files import write_json
from lora_trainer.measures.denoising import Pictures
from lora_trainer.measures.probe import Probe
from lora_trainer.measures.sampling import sample
from lora_trainer.seeds import derive
from tests.calibration.concepts import TRIGGER
from tests.calibration.runs import SAVES, Place, Run, caption, scenes
from tests.calibration.truth import STRENGTHS

LOOKED_AT = (0.7, 1.0)  # strengths at which pictures are made, too
CONTEXTS, SHORT = 6, 4
LATENT = (4, 8, 8)


def measure_run(run: Run, place: Place) -> None:
    """``measured/RUN.json`` has a row of numbers for each ``step|strength``."""
    path = place.root / "measured" / f"{run.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    wanted = [(step, strength) for step in SAVES for strength in STRENGTHS]
    if all(f"{step}|{strength}" in found for step, strength in wanted):
        return
    with place.host().take("no") as model, torch.no_grad():
        probe = Probe(model)
        material = gather(run, place, probe)
        bench, pictures = Bench(probe, material), Sampler(run, probe, material)
        for step, strength in wanted:
            key = f"{step}|{strength}"
            if key not in found:
                lora = place.lora(run, step)
                found[key] = asdict(bench.cell(lora, strength))
                if strength in LOOKED_AT:
                    found[key]["look"] = pictures.look(lora, strength)
                write_json(path, found)


class Sampler:
    """The measures' own pictures."""

    def __init__(self, run: Run, probe: Probe, material: Material) -> None:
        self.probe, self.prompts = probe, material.asked
        self.short = [run.subject.short().replace(TRIGGER, run.word)] * SHORT
        images = material.images.latents if material.images else None
        self.eyes = Eyes(probe, self._sample(self.prompts, "asked"), self._sample(self.short, "short"), images)

    def look(self, lora: Path, strength: float) -> dict[str, Any]:
        """What the pictures of a file show."""
        with self.probe.at(lora, strength):
            pictures, short = self._sample(self.prompts, "asked"), self._sample(self.short, "short")
        return asdict(self.eyes.look(pictures, short))

    def _sample(self, prompts: Any, key: str) -> torch.Tensor:
        return sample(self.probe, prompts, LATENT, key, steps=8)


def gather(run: Run, place: Place, probe: Probe) -> Material:
    """Training images, and known things in contexts of the measures' own."""
    rng = np.random.default_rng(derive("measure", run.name) % 2**32)
    shapes = [shape for shape in world.SHAPES if shape != run.word]
    contexts = []
    for i in range(CONTEXTS):
        scene = world.random_scene(rng)
        contexts.append(world.Scene(shapes[i % len(shapes)], scene.colour, scene.position, scene.background))
    plain = tuple(world.describe(scene) for scene in contexts)
    asked = tuple(run.subject.caption(scene).replace(TRIGGER, run.word) for scene in contexts)
    chosen = np.linspace(0, run.images - 1, min(MOST_IMAGES, run.images)).round().astype(int)
    all_scenes, folder = scenes(run), place.dataset(run) / f"1_{run.word}"
    images = Pictures(
        torch.cat([_encode(probe, folder / f"{i:02d}.png") for i in chosen]),
        tuple(caption(run, all_scenes[i], int(i)) for i in chosen), "images",
    )  # fmt: skip
    return Material(Pictures(sample(probe, plain, LATENT, "known"), plain, "known"), asked, images)


def _encode(probe: Probe, path: Path) -> torch.Tensor:
    pixels = torch.from_numpy(np.asarray(Image.open(path), dtype=np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
    return probe.model.encode_images(pixels)[0].cpu()
