"""What a WebUI's model calls itself; the same attributes in A1111 and in every fork."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lora_trainer.checkpoint_marks import Marks, read_marks
from lora_trainer.families import Family, family_of_flags


def checkpoint_name(model: Any) -> str:
    """The checkpoint's file name."""
    found = getattr(model, "sd_checkpoint_info", None)
    return Path(found.filename).name if found is not None else "The loaded model"


def checkpoint_path(model: Any) -> str:
    """The checkpoint's file; "" if it isn't known."""
    found = getattr(model, "sd_checkpoint_info", None)
    return str(found.filename) if found is not None else ""


def marks(model: Any) -> Marks:
    """What the checkpoint's file says of itself."""
    found = getattr(model, "sd_checkpoint_info", None)
    return read_marks(Path(found.filename)) if found is not None else Marks()


def family(model: Any) -> Family:
    """Which of the three architectures it is."""
    return family_of_flags(bool(getattr(model, "is_sdxl", False)), bool(getattr(model, "is_sd2", False)))
