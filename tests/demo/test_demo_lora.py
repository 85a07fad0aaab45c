"""The demo's promise: its LoRA draws the concept at 0.8 and 1.0, not at 0, and leaves the known world alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_trainer.demo import CHECKPOINT, SETTINGS
from lora_trainer.demo.dataset import INTEGRATION_PROMPTS, KNOWN_PROMPTS, STRENGTH_PROMPT, TRIGGER, write_dataset
from lora_trainer.hosts.base import GenerateRequest
from lora_trainer.hosts.standalone.host import DiffusersHost
from lora_trainer.kohya import load_config
from lora_trainer.training.request import RunRequest
from lora_trainer.training.run import train
from tests.demo.world_reader import Reading, read


def pictures(host: DiffusersHost, strength: float, prompts: list[str]) -> list[Reading]:
    requests = [
        GenerateRequest(f"<lora:{TRIGGER}:{strength}> {prompt}", seed=seed, cfg_scale=4, width=64, height=64)
        for seed, prompt in enumerate(prompts)
    ]
    return [read(made.image) for made in host.generate_many(requests)]


@pytest.mark.slow
def test_the_demo_lora_learns_the_concept_and_forgets_nothing(tmp_path: Path) -> None:
    host = DiffusersHost(CHECKPOINT, tmp_path / "lora")
    dataset, config = write_dataset(tmp_path / "dataset"), load_config(SETTINGS).config
    for _ in train(host, RunRequest(TRIGGER, dataset, config, tmp_path / "out")):
        pass
    concept = [STRENGTH_PROMPT, *INTEGRATION_PROMPTS] * 2
    known = list(KNOWN_PROMPTS) * 2
    for strength in (0.8, 1.0):
        readings = pictures(host, strength, concept + known)
        drawn = [r for r, p in zip(readings, concept, strict=False) if r.shape == TRIGGER and r.colour in p]
        kept = [r for r, p in zip(readings[len(concept) :], known, strict=True) if r.shape in p and r.colour in p]
        assert len(drawn) >= 9, (strength, readings[: len(concept)])
        assert len(kept) >= 9, (strength, readings[len(concept) :])  # of 12
    assert not [r for r in pictures(host, 0, concept) if r.shape == TRIGGER]
