"""The WebUI's own memory management, which alone moves its models: it keeps count of what is where.

Everything here runs in inference mode, as the WebUI runs it: it moves and patches tensors that were made so, in place.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch

from lora_trainer.hosts.forge.backend import memory_management
from lora_trainer.hosts.webui.loras import extension

NOTHING = str([])  # how the WebUI writes "no LoRA"


def bring(patchers: Iterable[Any]) -> None:
    """Have parts loaded to where they compute, whole where the WebUI can be asked for that, with no LoRA in them."""
    load = memory_management.load_models_gpu
    whole = {"force_full_load": True} if "force_full_load" in inspect.signature(load).parameters else {}
    with torch.inference_mode():
        load(list(patchers), **whole)


def send_away(patcher: Any) -> None:
    """Unload one part; the WebUI brings it back when it wants it."""
    loaded = memory_management.current_loaded_models
    mine = [one for one in loaded if _holds(one, patcher)]
    loaded[:] = [one for one in loaded if not _holds(one, patcher)]
    with torch.inference_mode():
        for one in mine:
            one.model_unload()
    memory_management.soft_empty_cache()


def is_loaded(patcher: Any) -> bool:
    """Whether the WebUI counts a part among those that are loaded."""
    return any(_holds(one, patcher) for one in memory_management.current_loaded_models)


def restore_base(model: Any) -> None:
    """Take what prompts' LoRAs changed out of UNet and text encoders, bit for bit, and have them read anew."""
    objects = model.forge_objects_original
    model.current_lora_hash = NOTHING  # else a rewritten file under the same name isn't read again
    model.forge_objects = objects.shallow_copy()
    model.forge_objects_after_applying_lora = objects.shallow_copy()
    networks = extension()
    if networks is not None:
        networks.loaded_networks.clear()
    patched = [patcher for patcher in (objects.unet, objects.clip.patcher) if _patched(patcher)]
    if patched:
        bring(patched)


def _patched(patcher: Any) -> bool:
    """Whether the weights of ``patcher``, which has no LoRA, hold one of its copies'."""
    loader = getattr(patcher.model, "lora_loader", None)
    if loader is not None:  # Forge's keeps them merged also while the part is away
        return bool(loader.loaded_hash != NOTHING)
    loaded = memory_management.current_loaded_models
    return bool(patcher.backup) or any(_holds(one, patcher) and one.model is not patcher for one in loaded)


def _holds(loaded: Any, patcher: Any) -> bool:
    """Whether an entry of the WebUI's list is of the part of ``patcher``, under whichever LoRA."""
    return loaded.model is not None and loaded.model.model is patcher.model
