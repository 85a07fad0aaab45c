"""Named settings to start from, as data. Each says what it is for and what it sets.

The numbers of ``starter`` are those of the beginner's course that this program follows; the others change what their
subject or model calls for. Ranks and switches for SDXL with little memory are those of kohya's documentation.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import Any, Literal

from lora_trainer.config.run import RunConfig
from lora_trainer.errors import ConfigError, quoted
from lora_trainer.families import Family

Subject = Literal["person", "style", "object", "character", "concept"]
Effort = Literal["quick", "normal", "thorough"]

EVERY_SUBJECT: tuple[Subject, ...] = ("person", "style", "object", "character", "concept")


@dataclass(frozen=True)
class Preset:
    """Settings with a name. ``options`` holds only what differs from the defaults of the option table."""

    name: str
    label: str
    help: str  # one sentence: what it is for and what it changes
    subjects: tuple[Subject, ...] = EVERY_SUBJECT
    families: tuple[Family, ...] = ("sd1",)
    effort: Effort = "normal"
    options: dict[str, Any] = field(default_factory=dict)

    def config(self) -> RunConfig:
        """The whole configuration."""
        return RunConfig().replace(**self.options)


_STARTER: dict[str, Any] = {
    "resolution": (512, 512), "train_batch_size": 1, "network_dim": 32, "network_alpha": 16.0,
    "optimizer_type": "AdamW8bit", "learning_rate": 5e-5, "unet_lr": 5e-5, "text_encoder_lr": 5e-5,
    "lr_scheduler": "cosine", "max_train_epochs": 10, "save_every_n_epochs": 2,
    "sample_every_n_epochs": 2,  # one image and one before the first step, unless sample_prompts has more
    "seed": 1234, "clip_skip": 2, "mixed_precision": "fp16", "gradient_checkpointing": True, "cache_latents": True,
}  # fmt: skip
_SDXL: dict[str, Any] = _STARTER | {
    "resolution": (1024, 1024), "clip_skip": 1, "network_dim": 16, "network_alpha": 8.0, "learning_rate": 1e-4,
    "unet_lr": 1e-4, "text_encoder_lr": None, "network_train_unet_only": True, "min_snr_gamma": 5.0,
}  # fmt: skip

PRESETS: tuple[Preset, ...] = (
    Preset(
        "starter", "Starter",
        "A good start for anything on SD 1.x: rank 32, 10 epochs, a file and a sample image every 2, to pick the best.",
        options=_STARTER,
    ),
    Preset(
        "quick", "Quick test",
        "Shows in a fraction of the time whether images and captions work: rank 8, 4 epochs, twice the learning rate.",
        effort="quick",
        options=_STARTER | {
            "network_dim": 8, "network_alpha": 4.0, "learning_rate": 1e-4, "unet_lr": 1e-4, "text_encoder_lr": 1e-4,
            "max_train_epochs": 4, "save_every_n_epochs": 1, "sample_every_n_epochs": 1,
        },
    ),
    Preset(
        "person", "Person",
        "A face from 15 to 20 photos: never mirrored, a file every 2 epochs, of which the test picks the best.",
        subjects=("person",),
        options=_STARTER | {"min_snr_gamma": 5.0},
    ),
    Preset(
        "character", "Character",
        "A drawn character with tags as captions: after the trigger word they are shuffled, so order isn't learned.",
        subjects=("character",),
        options=_STARTER | {
            "min_snr_gamma": 5.0, "shuffle_caption": True, "keep_tokens": 1,
        },
    ),
    Preset(
        "style", "Style",
        "An art style from 20 to 50 images: random mirroring, 5 % caption dropout, lower text encoder learning rate.",
        subjects=("style",),
        options=_STARTER | {
            "min_snr_gamma": 5.0, "flip_aug": True, "caption_dropout_rate": 0.05, "text_encoder_lr": 2.5e-5,
        },
    ),
    Preset(
        "object", "Object",
        "A thing from 10 to 30 images: rank 16, not mirrored, a file every 2 epochs, of which the test picks the best.",
        subjects=("object",),
        options=_STARTER | {"network_dim": 16, "network_alpha": 8.0, "min_snr_gamma": 5.0},
    ),
    Preset(
        "concept", "Concept",
        "A pose, an action or a look from 30 to 100 varied images: 5 % caption dropout.",
        subjects=("concept",),
        options=_STARTER | {"min_snr_gamma": 5.0, "caption_dropout_rate": 0.05},
    ),
    Preset(
        "thorough", "Thorough",
        "20 epochs at a lower learning rate with a short warm-up: takes longer, and gives more epochs to choose from.",
        effort="thorough",
        options=_STARTER | {
            "learning_rate": 3e-5, "unet_lr": 3e-5, "text_encoder_lr": 2e-5, "lr_warmup_steps": 0.05,
            "max_train_epochs": 20, "min_snr_gamma": 5.0,
        },
    ),
    Preset(
        "low-memory", "Low memory (SD 1.x)",
        "The least memory for SD 1.x: rank 4, UNet only, batch size 1, gradient checkpointing, everything cached.",
        options=_STARTER | {
            "network_dim": 4, "network_alpha": 4.0, "text_encoder_lr": None, "network_train_unet_only": True,
            "learning_rate": 1e-4, "unet_lr": 1e-4,
        },
    ),
    Preset(
        "sd2", "SD 2.x",
        "For SD 2.x checkpoints made for 768 pixels; for those made for 512, set resolution to 512,512.",
        families=("sd2",),
        options=_STARTER | {"resolution": (768, 768), "clip_skip": 1, "min_snr_gamma": 5.0},
    ),
    Preset(
        "sdxl", "SDXL",
        "For SDXL checkpoints: 1024 pixels, UNet only, rank 16.",
        families=("sdxl",),
        options=_SDXL,
    ),
    Preset(
        "sdxl-low-memory", "Low memory (SDXL)",
        "The settings that kohya gives for SDXL on 8 GB (10 GB is better): rank 8, UNet only, everything cached.",
        families=("sdxl",),
        options=_SDXL | {"network_dim": 8, "network_alpha": 4.0},
    ),
)  # fmt: skip

PRESET_NAMES: tuple[str, ...] = tuple(preset.name for preset in PRESETS)


def find_preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        ConfigError: if there is none; lists the names.
    """
    for preset in PRESETS:
        if preset.name == name.strip().lower():
            return preset
    near = difflib.get_close_matches(name, PRESET_NAMES, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise ConfigError(f"There is no preset {quoted(name)}{hint}; the presets are {', '.join(PRESET_NAMES)}.")
