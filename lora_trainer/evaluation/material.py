"""What a test measures on: the training images, and the base model's own pictures of things that were not trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lora_trainer.config import RunConfig
from lora_trainer.dataset.captions import render
from lora_trainer.dataset.folders import scan
from lora_trainer.dataset.images import load_pixels
from lora_trainer.dataset.weighted import plain_text
from lora_trainer.errors import LoraTrainerError, counted
from lora_trainer.measures.denoising import Pictures
from lora_trainer.measures.probe import Probe
from lora_trainer.measures.sampling import sample
from lora_trainer.seeds import python_rng
from lora_trainer.subjects import Subject

MOST_IMAGES = 8  # training images that are measured: with more the choice gets no better (docs/verdict.md)
FEWEST = 2


@dataclass(frozen=True, eq=False)
class Material:
    """Latents are the VAE's; ``reason`` says why there are no training images, where there are none."""

    known: Pictures  # made by the base model from prompts without the trigger
    asked: tuple[str, ...]  # the known pictures' prompts, with the trigger in the place of the class word
    images: Pictures | None = None
    reason: str = ""


def gather(
    probe: Probe, subject: Subject, trigger: str, run: Mapping[str, Any], side: int,
    most: int = MOST_IMAGES, contexts: int = MOST_IMAGES,
) -> Material:  # fmt: skip
    """What there is: the images that ``run.json`` names, if they are there still, and new pictures of known things.

    Args:
        side: pixels of the known pictures' sides.
        most: training images; ``contexts``: known pictures.
    """
    images, reason, captions = training_images(probe, run, most)
    prompts = subject.class_prompts()[:contexts]
    known = Pictures(sample(probe, prompts, (4, side // 8, side // 8), "known"), prompts, "known")
    with_class = any(name.split()[-1] in caption.lower().split() for caption in captions for name in subject.classes)
    return Material(known, subject.trigger_prompts(trigger, with_class)[:contexts], images, reason)


def training_images(
    probe: Probe, run: Mapping[str, Any], most: int = MOST_IMAGES
) -> tuple[Pictures | None, str, list[str]]:
    """Some training images of the most frequent size with their captions; else why there are none."""
    if not isinstance(run.get("dataset"), str) or not isinstance(run.get("config"), dict):
        return None, "it was trained elsewhere, so its images aren't known", []
    try:
        config = RunConfig.from_dict(run["config"])
        dataset = scan(Path(run["dataset"]), config.dataset, config.caption)
        chosen = dataset.of_one_size(most)
        if len(chosen) < FEWEST:
            return None, f"{counted(len(chosen), 'training image')} can't be told from chance", []
        latents, captions = [], []
        for index in chosen:
            item = dataset.items[index]
            pixels = load_pixels(item).pixels[None].to(probe.model.device)
            latents.append(probe.model.encode_images(pixels)[0].cpu())
            caption = render(item.captions, item.folder.caption, python_rng("measure", index))
            captions.append(plain_text(caption) if config.caption.weighted_captions else caption)
    except LoraTrainerError as error:
        return None, f"its training images can't be used ({error})", []
    return Pictures(torch.cat(latents), tuple(captions), "images"), "", captions
