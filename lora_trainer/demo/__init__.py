"""The embedded demo: a tiny checkpoint of a small world, and a concept that it does not know."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKPOINT = HERE / "checkpoint" / "tiny-world.safetensors"  # SD 1.x layout, 64 px
CONFIG = CHECKPOINT.with_suffix(".yaml")
TOKENIZER = HERE / "clip"  # the text encoder's config and vocabulary
SETTINGS = HERE / "settings.json"  # of the demo's training
