"""What every in-process WebUI shares as a host: its queue, its pictures, its LoRA list, the pinned checkpoint.

One more WebUI is one more subclass of :class:`WebUIHost`, which says how its model is reached and lent. See
:class:`lora_trainer.hosts.base.Host` for what a job asks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from modules import sd_models, shared

from lora_trainer.dtypes import precision_of
from lora_trainer.errors import ConfigError, HostBusyError
from lora_trainer.hosts.base import (
    Captioner,
    GeneratedImage,
    GenerateRequest,
    Glance,
    ModelInfo,
    Progress,
)  # fmt: skip
from lora_trainer.hosts.webui import captioners, loras
from lora_trainer.hosts.webui.holding import LentModel, Pin
from lora_trainer.hosts.webui.identity import marks
from lora_trainer.hosts.webui.options import setting
from lora_trainer.hosts.webui.pictures import make_picture, sampler_name
from lora_trainer.hosts.webui.queue import Shift

if TYPE_CHECKING:
    from collections.abc import Callable

    from lora_trainer.training.events import CancelToken

SERVE = "lora_trainer_serve_generation"  # the setting


class WebUIHost(ABC):
    """A WebUI, from inside its process. Everything but :meth:`defaults` and :meth:`glance` needs :meth:`working`."""

    name: str
    full_precision: str  # how to have the weights in fp32

    def __init__(self) -> None:
        self._shift: Shift | None = None
        self._pin: Pin | None = None
        self._model: Any = None
        self._taken: LentModel | None = None

    # What differs between WebUIs

    @abstractmethod
    def current_model(self) -> Any:
        """The loaded model, in line with the checkpoint chosen at the top; called with the queue held.

        Raises:
            UnsupportedModelError: if there is none, or not one that can be trained.
        """

    @abstractmethod
    def describe(self, model: Any) -> ModelInfo:
        """What the model is; leftovers of LoRAs are out of its weights."""

    @abstractmethod
    def glance_at(self, model: Any) -> Glance:
        """What is told without reading weights."""

    @abstractmethod
    def reads_clip_skip(self, model: Any) -> bool:
        """Whether the WebUI's clip skip changes what this model reads."""

    @abstractmethod
    def number_format(self, model: Any) -> torch.dtype:
        """The one in which the UNet computes."""

    @abstractmethod
    def pin(self, model: Any) -> Pin:
        """Keep the model from being changed, from now until it is removed."""

    def loaded_model(self) -> Any | None:
        """The model in memory, if it has been loaded already; loads nothing."""
        return sd_models.model_data.sd_model

    @abstractmethod
    def open_model(self, model: Any, picture: Callable[[GenerateRequest], GeneratedImage]) -> LentModel:
        """Take the model for training; ``picture`` makes one with it, live hooks and all."""

    @abstractmethod
    def restore_base(self, model: Any) -> None:
        """Take what prompts' LoRAs changed out of the weights, bit for bit."""

    @abstractmethod
    def bring_blip(self, interrogator: Any) -> None:
        """Load the interrogator's BLIP, and not its CLIP, to where it computes, as the interrogator would."""

    # What is the same in all

    @property
    def lora_dir(self) -> Path:
        """Where the WebUI looks for LoRA files."""
        return Path(shared.cmd_opts.lora_dir)

    def defaults(self) -> dict[str, Any]:
        """The precision that the loaded weights and the card allow, the clip skip that is set, and what the checkpoint
        says of its noise schedule."""
        model = self.loaded_model()
        values: dict[str, Any] = {"mixed_precision": self._precision(model)}
        if model is not None and marks(model).zero_snr:
            values["zero_terminal_snr"] = True
        if model is None or self.reads_clip_skip(model):
            values["clip_skip"] = int(setting("CLIP_stop_at_last_layers", 1))
        return values

    def checkpoint_dir(self) -> Path | None:
        """See :class:`lora_trainer.hosts.base.Host`."""
        return Path(sd_models.model_path)

    def refresh_checkpoints(self) -> None:
        """See :class:`lora_trainer.hosts.base.Host`."""
        sd_models.list_models()

    def glance(self) -> Glance | None:
        """The model in memory, if it has been loaded already."""
        model = self.loaded_model()
        return self.glance_at(model) if model is not None else None

    @contextmanager
    def working(self, job: str, token: CancelToken) -> Iterator[None]:
        """Hold the queue; shows the job, passes Interrupt on, keeps the checkpoint.

        Raises:
            HostBusyError: if another job of ours holds it.
            UnsupportedModelError: if the loaded model can't be trained.
        """
        if self._shift is not None:
            raise HostBusyError(
                "The WebUI's model is already in use by Train LoRA; wait for the run to finish, or stop it."
            )
        shift = Shift(job, token)
        self._shift = shift
        try:
            shift.begin()
            try:
                self._model = self.current_model()
                self._pin = self.pin(self._model)
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
                self.restore_base(model)
        finally:
            if pin is not None:
                pin.remove()

    def info(self) -> ModelInfo:
        """What the loaded model is."""
        return self._taken.info if self._taken is not None else self.describe(self._held())

    @contextmanager
    def take(self, mixed_precision: str) -> Iterator[LentModel]:
        """Take the loaded model for training.

        Raises:
            ConfigError: if it can't be trained in this precision.
        """
        model = self._held()
        if mixed_precision == "no" and self.number_format(model) != torch.float32:
            raise ConfigError(
                "The WebUI holds the weights in fp16: choose mixed_precision fp16 or bf16, or start it with "
                f"{self.full_precision}."
            )
        taken = self.open_model(model, self._live_picture)
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
        stale = loras.forget(changed)
        if stale and self._model is not None:
            self.restore_base(self._model)  # a weight that holds "NAME at 1.0" would not be made again for the new file

    def lora_modules(self, path: Path) -> int | None:
        """How many modules of a file the WebUI's loader matches with the loaded model."""
        return loras.applied_modules(path)

    def captioners(self) -> dict[str, str]:
        """See :class:`lora_trainer.hosts.base.Host`."""
        return captioners.problems()

    def captioner(self, name: str) -> AbstractContextManager[Captioner]:
        """See :class:`lora_trainer.hosts.base.Host`."""
        self._held()
        return captioners.opened(name, self.bring_blip)

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
            self.restore_base(self._held())
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
            raise HostBusyError("The image was interrupted, so it wasn't saved.")
        return made

    def _held(self) -> Any:
        if self._model is None:
            raise HostBusyError("The WebUI's model can be used only while a run has it; start one.")
        return self._model

    def _working(self) -> Shift:
        if self._shift is None:
            raise HostBusyError("The WebUI's model can be used only while a run has it; start one.")
        return self._shift

    def _pinned(self) -> Pin:
        assert self._pin is not None  # made with the shift
        return self._pin

    def _precision(self, model: Any) -> str:
        """That of the loaded weights: with another one the backward pass would keep a cast copy of each of them."""
        if model is None:
            return "fp16" if torch.device(shared.device).type == "cuda" else "no"
        return precision_of(self.number_format(model))
