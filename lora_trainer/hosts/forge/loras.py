"""How many modules of a file these WebUIs' loader matches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lora_trainer.hosts.forge.backend import lora, utils
from lora_trainer.hosts.webui.loras import known


def applied_modules(model: Any, path: Path) -> int | None:
    """How many modules of a LoRA file fit the loaded model; None if the WebUI doesn't know the file."""
    if known(path) is None:
        return None
    objects = model.forge_objects_original
    state = utils.load_torch_file(str(path), safe_load=True)
    names = (
        lora.model_lora_keys_unet(objects.unet.model, {}),
        lora.model_lora_keys_clip(objects.clip.cond_stage_model, {}),
    )
    count = 0
    for known_names in names:
        found = lora.load_lora(state, known_names)
        matched, state = found if isinstance(found, tuple) else (found, state)  # some give back what is left over
        count += len(matched)
    return count
