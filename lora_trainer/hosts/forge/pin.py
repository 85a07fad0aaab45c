"""The checkpoint stays while a job holds it.

These WebUIs only note a choice; every picture begins by loading what is noted. During a job it finds the model that is
there. A choice is carried out by the first picture after the job.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from modules import processing, sd_models

from lora_trainer.errors import HostBusyError

HOLDERS = (sd_models, processing)  # which has imported the function by name


class LazyPin:
    """Keeps ``forge_model_reload`` from changing the model."""

    def __init__(self, model: Any) -> None:
        self._model, self._thread = model, threading.get_ident()
        self._choice, self._active = self._chosen(), True
        self._load: Callable[[], tuple[Any, bool]] = sd_models.forge_model_reload
        for holder in HOLDERS:
            holder.forge_model_reload = self._wanted

    def remove(self) -> None:
        """Let changes through again; call it with the queue held."""
        self._active = False
        for holder in HOLDERS:
            if holder.forge_model_reload == self._wanted:  # else somebody has wrapped it, and it passes calls on
                holder.forge_model_reload = self._load

    def other_chosen(self) -> bool:
        """Whether another checkpoint, VAE or number format is chosen: generations wait for it, until the job ends."""
        return self._chosen() != self._choice

    @staticmethod
    def _chosen() -> str:
        return str(sd_models.model_data.forge_loading_parameters)

    def _wanted(self) -> tuple[Any, bool]:
        gone = sd_models.model_data.sd_model is not self._model
        if not self._active or (gone and threading.get_ident() != self._thread):
            return self._load()
        if threading.get_ident() != self._thread and self.other_chosen():
            raise HostBusyError(
                f"Train LoRA is training {self._model.sd_checkpoint_info.name}; generate with that one until it has "
                "finished, or with another one afterwards."
            )
        return sd_models.model_data.sd_model, False
