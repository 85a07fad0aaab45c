"""AUTOMATIC1111's WebUI as a host: what is its own, beside what all WebUIs share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from modules import devices, shared

from lora_trainer.families import traits
from lora_trainer.hosts.a1111 import checkpoint, merged
from lora_trainer.hosts.a1111.model import A1111Model
from lora_trainer.hosts.base import GeneratedImage, GenerateRequest, Glance, ModelInfo
from lora_trainer.hosts.webui.holding import Pin
from lora_trainer.hosts.webui.host import WebUIHost
from lora_trainer.hosts.webui.identity import family
from lora_trainer.hosts.webui.pin import ReloadPin


class A1111Host(WebUIHost):
    """AUTOMATIC1111's WebUI, from inside its process."""

    name = "a1111"
    full_precision = "--no-half"

    def current_model(self) -> Any:
        """See :class:`WebUIHost`."""
        return checkpoint.current_model()

    def describe(self, model: Any) -> ModelInfo:
        """See :class:`WebUIHost`."""
        return checkpoint.describe(model)

    def glance_at(self, model: Any) -> Glance:
        """See :class:`WebUIHost`."""
        return checkpoint.glance(model)

    def reads_clip_skip(self, model: Any) -> bool:
        """See :class:`WebUIHost`."""
        return traits(family(model)).clip_skip

    def number_format(self, model: Any) -> torch.dtype:
        """See :class:`WebUIHost`: that of the weights."""
        found: torch.dtype = next(model.model.parameters()).dtype
        return found

    def pin(self, model: Any) -> Pin:
        """See :class:`WebUIHost`."""
        return ReloadPin(model)

    def open_model(self, model: Any, picture: Callable[[GenerateRequest], GeneratedImage]) -> A1111Model:
        """See :class:`WebUIHost`."""
        return A1111Model(model, picture)

    def restore_base(self, model: Any) -> None:
        """See :class:`WebUIHost`."""
        merged.restore_base(model)

    def bring_blip(self, interrogator: Any) -> None:
        """See :class:`WebUIHost`."""
        from modules import lowvram

        lowvram.send_everything_to_cpu()  # with --medvram, a part of the checkpoint may be in the way
        devices.torch_gc()
        if interrogator.blip_model is None:
            loaded = interrogator.load_blip_model()
            halved = not (shared.cmd_opts.no_half or interrogator.running_on_cpu)
            interrogator.blip_model = loaded.half() if halved else loaded
        interrogator.blip_model = interrogator.blip_model.to(devices.device_interrogate)
        interrogator.dtype = next(interrogator.blip_model.parameters()).dtype
