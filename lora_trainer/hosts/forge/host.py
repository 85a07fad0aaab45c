"""Forge Neo, Forge, ersatzForge and reForge as hosts: what is their own, beside what all WebUIs share."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from modules import sd_models

from lora_trainer.families import traits
from lora_trainer.hosts.base import GeneratedImage, GenerateRequest, Glance, ModelInfo
from lora_trainer.hosts.forge import checkpoint, loras, memory
from lora_trainer.hosts.forge.backend import computation_dtype, ends_in_noise
from lora_trainer.hosts.forge.model import ForgeModel
from lora_trainer.hosts.webui.holding import Pin
from lora_trainer.hosts.webui.host import WebUIHost
from lora_trainer.hosts.webui.identity import family


class ForgeHost(WebUIHost):
    """A WebUI of Forge's kind, from inside its process."""

    name = "forge"
    full_precision = "its option for an fp32 UNet"

    def loaded_model(self) -> Any | None:
        """See :class:`WebUIHost`."""
        return checkpoint.loaded_model()

    def current_model(self) -> Any:
        """See :class:`WebUIHost`."""
        return checkpoint.current_model()

    def pin(self, model: Any) -> Pin:
        """See :class:`WebUIHost`."""
        if hasattr(sd_models, "forge_model_reload"):
            from lora_trainer.hosts.forge.pin import LazyPin

            return LazyPin(model)
        from lora_trainer.hosts.webui.pin import ReloadPin

        return ReloadPin(model)

    def describe(self, model: Any) -> ModelInfo:
        """See :class:`WebUIHost`."""
        return checkpoint.describe(model)

    def glance_at(self, model: Any) -> Glance:
        """See :class:`WebUIHost`."""
        return checkpoint.glance(model)

    def defaults(self) -> dict[str, Any]:
        """Also zero SNR, for a checkpoint that says so itself; the noise schedule in memory is the one before it."""
        values, model = super().defaults(), self.loaded_model()
        if model is not None and ends_in_noise(model):
            values["zero_terminal_snr"] = True
        return values

    def reads_clip_skip(self, model: Any) -> bool:
        """See :class:`WebUIHost`."""
        return traits(family(model)).clip_skip

    def number_format(self, model: Any) -> torch.dtype:
        """See :class:`WebUIHost`: weights may be stored in a smaller one."""
        found = computation_dtype(model)
        return found if found in checkpoint.TRAINABLE else torch.float16

    def open_model(self, model: Any, picture: Callable[[GenerateRequest], GeneratedImage]) -> ForgeModel:
        """See :class:`WebUIHost`."""
        return ForgeModel(model, picture)

    def restore_base(self, model: Any) -> None:
        """See :class:`WebUIHost`."""
        memory.restore_base(model)

    def bring_blip(self, interrogator: Any) -> None:
        """See :class:`WebUIHost`."""
        if interrogator.blip_model is None:
            loaded = interrogator.load_blip_model().to(device=interrogator.offload_device, dtype=interrogator.dtype)
            devices = {"load_device": interrogator.load_device, "offload_device": interrogator.offload_device}
            interrogator.blip_patcher = import_module("modules.interrogate").ModelPatcher(loaded, **devices)
            interrogator.blip_model = loaded
        memory.bring([interrogator.blip_patcher])

    def lora_modules(self, path: Path) -> int | None:
        """See :class:`lora_trainer.hosts.base.Host`."""
        return loras.applied_modules(self._held(), path)
