"""The checkpoint stays while a job holds it.

Every generation begins by loading the checkpoint that is chosen in the top bar; so does the choice itself. During a job
both come here instead: a choice is remembered and carried out when the job ends, and a generation that asks for another
checkpoint is told so.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from typing import Any

from modules import processing, sd_models, sd_vae, shared

from lora_trainer.errors import HostBusyError

log = logging.getLogger(__name__)


class ReloadPin:
    """Keeps ``sd_models.reload_model_weights`` and ``sd_vae.reload_vae_weights`` from changing the model."""

    def __init__(self, model: Any) -> None:
        self._model, self._thread = model, threading.get_ident()
        self._active, self._put_off = True, False
        self._load_model: Callable[..., Any] = sd_models.reload_model_weights
        self._load_vae: Callable[..., Any] = sd_vae.reload_vae_weights
        self._choice = self._chosen()
        sd_models.reload_model_weights = self._model_wanted
        sd_vae.reload_vae_weights = self._vae_wanted

    def remove(self) -> None:
        """Let changes through again and make the one that was put off; call it with the queue held."""
        self._active = False
        if sd_models.reload_model_weights == self._model_wanted:
            sd_models.reload_model_weights = self._load_model
        if sd_vae.reload_vae_weights == self._vae_wanted:  # else somebody has wrapped it, and it passes calls on
            sd_vae.reload_vae_weights = self._load_vae
        if not self._put_off:
            return
        try:
            self._load_model()
            self._load_vae()
        except Exception:  # what was chosen can't be loaded: the WebUI says the same at the next generation
            log.exception("Loading the checkpoint that was chosen during training")

    def other_chosen(self) -> bool:
        """Whether another checkpoint or VAE is chosen by now: generations then wait for it, until the job ends."""
        return self._chosen() != self._choice

    @staticmethod
    def _chosen() -> tuple[Any, Any]:
        return shared.opts.data.get("sd_model_checkpoint"), shared.opts.data.get("sd_vae")

    def _model_wanted(self, sd_model: Any = None, info: Any = None, forced_reload: bool = False) -> Any:
        if not self._active:
            return self._load_model(sd_model, info, forced_reload)
        if threading.get_ident() == self._thread or shared.sd_model is not self._model:
            return shared.sd_model
        wanted = info or sd_models.select_checkpoint()
        if wanted.filename != self._model.sd_checkpoint_info.filename:
            if _generating():
                raise HostBusyError(
                    f"Train LoRA is training {self._model.sd_checkpoint_info.name}; generate with that one until it "
                    f"has finished, or with {wanted.name} afterwards."
                )
            self._put_off = True
        elif forced_reload:
            self._put_off = True
        return self._model

    def _vae_wanted(self, sd_model: Any = None, vae_file: Any = sd_vae.unspecified) -> Any:
        if not self._active or _generating():  # a request with a VAE of its own puts the other back itself
            return self._load_vae(sd_model, vae_file)
        self._put_off = True
        return self._model


def _generating() -> bool:
    """Whether the caller is a generation, and not a change of settings."""
    frame: Any = sys._getframe(1)
    code = processing.process_images.__code__
    while frame is not None:
        if frame.f_code is code:
            return True
        frame = frame.f_back
    return False
