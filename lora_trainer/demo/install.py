"""Put the embedded checkpoint into a WebUI. Needs neither torch nor diffusers."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from lora_trainer.demo import CHECKPOINT, CONFIG, TOKENIZER


def install(models_dir: Path) -> Path:
    """Copy the checkpoint into a WebUI's ``models/Stable-diffusion``; returns the copy.

    The config beside it gets the tokenizer's absolute folder, since A1111 looks that up from its own working directory.
    A file that is already there and the same is left alone.
    """
    models_dir.mkdir(parents=True, exist_ok=True)
    target = models_dir / CHECKPOINT.name
    if not target.exists() or target.read_bytes() != CHECKPOINT.read_bytes():
        temporary = target.with_name(target.name + ".tmp")
        shutil.copyfile(CHECKPOINT, temporary)
        temporary.replace(target)
    folder = json.dumps(TOKENIZER.as_posix(), ensure_ascii=False)  # a quoted YAML string
    text, count = re.subn(r"(?<=version: )[^\n}]+", lambda _: folder, CONFIG.read_text("utf-8"))
    if count != 1:
        raise ValueError(f"{CONFIG} has {count} lines with the tokenizer's folder, expected one")
    config = target.with_suffix(".yaml")
    temporary = config.with_name(config.name + ".tmp")
    temporary.write_text(text, "utf-8")
    temporary.replace(config)
    return target
