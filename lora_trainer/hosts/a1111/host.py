"""The host itself: everything that a job asks of the WebUI. See :class:`lora_trainer.hosts.base.Host`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from modules import sd_models, shared

from lora_trainer.errors import ConfigError, HostBusyError
from lora_trainer.hosts.a1111 import checkpoint, loras
from lora_trainer.hosts.a1111.model import A1111Model
from lora_trainer.hosts.a1111.pictures import make_picture, sampler_name
from lora_trainer.hosts.a1111.pin import Pin
from lora_trainer.hosts.a1111.queue import Shift
from lora_trainer.hosts.base import GeneratedImage, GenerateRequest, Glance, ModelInfo, Progress

if TYPE_CHECKING:
    from lora_trainer.training.events import CancelToken

SERVE = "lora_trainer_serve_generation"  # the setting


class A1111Host:
    """AUTOMATIC1111's WebUI, from inside its process. Everything but :meth:`defaults` needs :meth:`working`.

    Raises:
        UnsupportedModelError: in a relative of it whose models can't be trained.
    """

    name = "a1111"

    def __init__(self) -> None:
        checkpoint.refuse_other_hosts()
        self._shift: Shift | None = None
        self._pin: Pin | None = None
        self._model: Any = None
        self._taken: A1111Model | None = None

    @property
    def lora_dir(self) -> Path:
        """Where the WebUI looks for LoRA files."""
        return Path(shared.cmd_opts.lora_dir)

    def defaults(self) -> dict[str, Any]:
        """The precision that the loaded weights and the card allow, and the clip skip that is set."""
        model = sd_models.model_data.sd_model
        values: dict[str, Any] = {"mixed_precision": _precision(model)}
        if model is None or checkpoint.family(model) == "sd1":
            values["clip_skip"] = int(shared.opts.data.get("CLIP_stop_at_last_layers", 1))
        return values

    def glance(self) -> Glance | None:
        """The model in memory, if it has been loaded already."""
        model = sd_models.model_data.sd_model
        return checkpoint.glance(model) if model is not None else None

    @contextmanager
    def working(self, job: str, token: CancelToken) -> Iterator[None]:
        """Hold the queue; shows the job, passes Interrupt on, keeps the checkpoint.

        Raises:
            HostBusyError: if another job of ours holds it.
            UnsupportedModelError: if the loaded model can't be trained.
        """
        if self._shift is not None:
            raise HostBusyError("A job holds the WebUI's model already; wait for its end or stop it.")
        shift = Shift(job, token)
        self._shift = shift
        try:
            shift.begin()
            try:
                self._model = checkpoint.current_model()
                self._pin = Pin(self._model)
                yield
            finally:
                try:
                    self._leave()
                finally:
                    shift.end()
        finally:
            self._shift = None

    def _leave(self) -> None:
        """Nothing of the job stays in the model; a checkpoint that was chosen meanwhile is loaded."""
        model, self._model = self._model, None
        pin, self._pin = self._pin, None
        try:
            if model is not None and shared.sd_model is model:
                loras.restore_base(model)
        finally:
            if pin is not None:
                pin.remove()

    def info(self) -> ModelInfo:
        """What the loaded model is."""
        return self._taken.info if self._taken is not None else checkpoint.describe(self._held())

    @contextmanager
    def take(self, mixed_precision: str) -> Iterator[A1111Model]:
        """Take the loaded model for training.

        Raises:
            ConfigError: if it can't be trained in this precision.
        """
        model = self._held()
        if mixed_precision == "no" and next(model.model.parameters()).dtype != torch.float32:
            raise ConfigError(
                "The WebUI holds the weights in fp16: choose mixed_precision fp16 or bf16, or start it with --no-half."
            )
        taken = A1111Model(model, self._live_picture)
        self._taken = taken
        try:
            yield taken
        finally:
            self._taken = None
            taken.close()

    def generate(self, request: GenerateRequest) -> GeneratedImage:
        """Make a picture as a user makes it, with ``<lora:NAME:weight>`` in the prompt."""
        return self._picture(request, extra_networks=True)

    def check(self, request: GenerateRequest) -> None:
        """Refuse a sampler or a LoRA that the WebUI doesn't know.

        Raises:
            ConfigError, FileError: in one sentence.
        """
        sampler_name(request.sampler)
        loras.refuse_unknown(request.prompt)

    def refresh_loras(self, changed: Sequence[Path] = ()) -> None:
        """Make new and rewritten files known to the WebUI's Lora extension."""
        loras.refresh(self._model, changed)

    def lora_modules(self, path: Path) -> int | None:
        """How many modules of a file the WebUI's loader matches with the loaded model."""
        return loras.applied_modules(path)

    def between_steps(self, progress: Progress) -> None:
        """Show progress, pass Interrupt on, and let those who wait generate."""
        shift = self._working()
        shift.listen()
        if self._taken is not None:
            self._taken.check()
        shift.show(progress)
        serve = bool(shared.opts.data.get(SERVE, True))
        if serve and not shift.token.cancelled and shift.others_wait() and not self._pinned().other_chosen():
            with self.lent():
                pass

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Give model and queue back for as long as the block lasts."""
        taken = self._taken
        if taken is not None:
            taken.close()
        else:
            loras.restore_base(self._held())
        try:
            with self._working().released():
                yield
        finally:
            if taken is not None:
                taken.open()

    def _live_picture(self, request: GenerateRequest) -> GeneratedImage:
        """A sample picture during training: our own hooks, no ``<lora:…>``; shown as the job's preview."""
        made = self._picture(request, extra_networks=False)
        shared.state.assign_current_image(made.image)
        return made

    def _picture(self, request: GenerateRequest, extra_networks: bool) -> GeneratedImage:
        """An interrupted picture is made once more: the job ends after it, not in the middle of it."""
        made = make_picture(self._held(), request, extra_networks)
        if made is None and self._working().listen():
            made = make_picture(self._held(), request, extra_networks)
        if made is None:
            raise HostBusyError("The picture was interrupted; nothing was saved of it.")
        return made

    def _held(self) -> Any:
        if self._model is None:
            raise HostBusyError("The WebUI's model is used by a job only; start one.")
        return self._model

    def _working(self) -> Shift:
        if self._shift is None:
            raise HostBusyError("The WebUI's model is used by a job only; start one.")
        return self._shift

    def _pinned(self) -> Pin:
        assert self._pin is not None  # made with the shift
        return self._pin


def _precision(model: Any) -> str:
    """That of the loaded weights: with another one the backward pass would keep a cast copy of each of them."""
    if model is None:
        return "fp16" if torch.device(shared.device).type == "cuda" else "no"
    weights = next(model.model.parameters()).dtype
    return {torch.float16: "fp16", torch.bfloat16: "bf16"}.get(weights, "no")
