"""Which presets suit the model at hand, and what of a preset this machine calls for otherwise."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from typing import Any

from lora_trainer.config import RunConfig
from lora_trainer.config.presets import PRESETS, Preset
from lora_trainer.families import SD1
from lora_trainer.hosts.base import Glance

SMALLEST = 256  # px; below it a checkpoint is one to practise on
PRACTICE = "practice"
USUAL_STEPS, SMALLEST_STEPS = 64, 16  # px


def presets_for(glance: Glance | None) -> tuple[Preset, ...]:
    """The presets to offer for a model, the one to begin with first; those of SD 1.x where nothing is known."""
    family = glance.family if glance else SD1
    offered = tuple(preset for preset in PRESETS if family in preset.families)
    if is_practice(glance):
        return (_practice(), *offered)
    return offered


def _practice() -> Preset:
    from lora_trainer.demo import SETTINGS

    return Preset(
        PRACTICE,
        "Practice",
        "For the tiny practice checkpoint: the demo's settings, with a high learning rate and few pixels.",
        options={
            "sample_every_n_epochs": 2,
            **{name: value for name, value in json.loads(SETTINGS.read_text("utf-8")).items() if name != "version"},
        },
    )


def fitted(preset: Preset, glance: Glance | None, suggested: Mapping[str, Any]) -> tuple[RunConfig, list[str]]:
    """The preset's configuration as this machine can train it, and a sentence for every change.

    Args:
        suggested: the host's own defaults (precision, clip skip), which win.
    """
    config, notes = preset.config(), []
    if glance and glance.resolution not in config.dataset.resolution:
        side = glance.resolution
        config = config.replace(resolution=(side, side))
        notes.append(f"Resolution {side}: what {glance.checkpoint} is made for.")
    if glance and bucket_steps(glance.resolution) < config.dataset.bucket_reso_steps:
        config = config.replace(bucket_reso_steps=bucket_steps(glance.resolution))
        notes.append(f"bucket_reso_steps {config.dataset.bucket_reso_steps}: {glance.checkpoint} makes small images.")
    for name, value in suggested.items():
        if config.value(name) != value:
            config = config.replace(**{name: value})
            if glance is None or not glance.marks.reason(name):  # else it is said with its reason anyway
                notes.append(f"{name} {value}: as the WebUI runs the model.")
    if "mixed_precision" not in suggested and config.memory.mixed_precision != "no" and not _has_cuda():
        config = config.replace(mixed_precision="no")
        notes.append("mixed_precision no: there is no CUDA GPU here.")
    if config.optimizer.optimizer_type == "AdamW8bit" and not (_has_cuda() and _installed("bitsandbytes")):
        config = config.replace(optimizer_type="AdamW")
        reason = "bitsandbytes isn't installed" if _has_cuda() else "the 8-bit one needs a CUDA GPU"
        notes.append(f"Optimiser AdamW: {reason}.")
    return config, notes


def bucket_steps(resolution: int) -> int:
    """Steps of bucket sides, in pixels, for a model of that size: a quarter of it, at most the usual 64.

    With 64 at a model of 64 pixels, any image that isn't square would have no bucket.
    """
    return max(SMALLEST_STEPS, min(USUAL_STEPS, resolution // 4 // 16 * 16))


def is_practice(glance: Glance | None) -> bool:
    """Whether the model is one to practise on, and not to learn photos."""
    return glance is not None and not glance.refusal and glance.resolution < SMALLEST


def find(presets: Sequence[Preset], name: object) -> Preset | None:
    """The preset of that name among those that are offered."""
    return next((preset for preset in presets if preset.name == name), None)


def _has_cuda() -> bool:
    import torch  # a WebUI has loaded it long before; stand-alone, when the page is opened

    return bool(torch.cuda.is_available())


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False
