"""The WebUI's model while a run holds it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from modules import shared
from torch import Tensor, nn

from lora_trainer.errors import HostBusyError
from lora_trainer.frozen_weights.held import FrozenWeights
from lora_trainer.hosts.base import (
    PARTS,
    Conditioning,
    GeneratedImage,
    GenerateRequest,
    Part,
    SizeConditioning,
    TextEncoder,
)
from lora_trainer.hosts.forge import checkpoint, memory, text, vae
from lora_trainer.hosts.forge.backend import alphas_cumprod, computation_dtype
from lora_trainer.hosts.forge.neutral import neutral
from lora_trainer.hosts.forge.tensors import ordinary_tensors
from lora_trainer.hosts.frozen import frozen
from lora_trainer.memory import has_own_memory, release

TRANSFORMER, RESIDUAL = "BasicTransformerBlock", "ResBlock"


class ForgeModel:
    """A :class:`lora_trainer.hosts.base.TakenModel` on the parts that the WebUI generates with.

    Args:
        model: the WebUI's model.
        picture: makes a picture with it, live hooks and all.
    """

    apart = False

    def __init__(self, model: Any, picture: Callable[[GenerateRequest], GeneratedImage]) -> None:
        self._model, self._picture = model, picture
        objects = model.forge_objects_original
        self._patchers = {"unet": objects.unet, "vae": objects.vae.patcher, "text_encoders": objects.clip.patcher}
        self._neutral: ExitStack | None = None
        self._ours: ExitStack | None = None
        self._here: set[Part] = set()  # what was brought last, all together
        self._kept: set[Part] = {"unet", "text_encoders"}  # what is to be here for a step
        self.device: torch.device = objects.unet.load_device
        self.unet: nn.Module = objects.unet.model.diffusion_model
        self.weights = FrozenWeights(self.unet, self.device)
        self.text_encoders: Sequence[TextEncoder] = checkpoint.encoders(model)
        found = alphas_cumprod(model)
        assert found is not None  # else it is refused
        self.alphas_cumprod = found
        self.open()
        try:
            self.info = checkpoint.describe(model)
        except BaseException:
            self.close()
            raise

    def open(self) -> None:
        """Take the model: LoRAs are out of it, and what the WebUI did to it is undone."""
        self._refuse_another()
        memory.restore_base(self._model)
        with ExitStack() as stack:
            stack.callback(self._let_go)
            self._load()
            self._hold()
            transformers = [module for module in self.unet.modules() if type(module).__name__ == TRANSFORMER]
            stack.enter_context(neutral(self._model, transformers))
            self._neutral = stack.pop_all()

    def close(self) -> None:
        """Give it back as it was; does nothing if it is back."""
        stack, self._neutral = self._neutral, None
        if stack is not None:
            stack.close()

    def check(self) -> None:
        """Whether the model is still there.

        Raises:
            HostBusyError: if somebody unloaded or replaced it.
        """
        self._refuse_another()
        if any(not memory.is_loaded(self._patchers[part]) for part in self._here if part == "unet"):
            raise HostBusyError(
                "The checkpoint was unloaded during training (by Settings → Actions or an extension); make a picture, "
                "which loads it, then resume the run."
            )

    def encode_images(self, pixels: Tensor, tile: int = 0) -> tuple[Tensor, Tensor]:
        """See :class:`lora_trainer.hosts.base.TakenModel`."""
        self._need("vae")
        return vae.latent_moments(self._model, pixels, tile)

    def encode_captions(self, captions: Sequence[str], max_token_length: int, clip_skip: int) -> Conditioning:
        """See :class:`lora_trainer.hosts.base.TakenModel`."""
        self._need("text_encoders")
        device = self._patchers["text_encoders"].load_device
        found = text.encode_captions(self._model, captions, max_token_length, clip_skip, device)
        pooled = None if found.pooled is None else found.pooled.to(self.device)
        return Conditioning(found.context.to(self.device), pooled)

    def predict(
        self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, sizes: Sequence[SizeConditioning]
    ) -> Tensor:
        """See :class:`lora_trainer.hosts.base.TakenModel`."""
        self._need("unet")
        computing: dict[str, Any] = {"dtype": computation_dtype(self._model), "device": self.device}
        vector = None
        if conditioning.pooled is not None:
            vector = torch.cat([conditioning.pooled, text.size_vector(self._model, sizes, self.device)], dim=1)
        predicted: Tensor = self.unet(
            noisy.to(**computing), timesteps.to(self.device).float(), context=conditioning.context.to(**computing),
            y=None if vector is None else vector.to(**computing), transformer_options={},
        )  # fmt: skip
        return predicted.float()

    def blocks(self) -> list[nn.Module]:
        """See :class:`lora_trainer.hosts.base.TakenModel`."""
        return [module for module in self.unet.modules() if type(module).__name__ in (TRANSFORMER, RESIDUAL)]

    def modules(self, part: Part) -> list[nn.Module]:
        """See :class:`lora_trainer.hosts.base.TakenModel`."""
        return [self._patchers[part].model]

    def keep(self, parts: Collection[Part]) -> None:
        """See :class:`lora_trainer.hosts.base.TakenModel`."""
        self._kept = set(parts)
        if self.device.type == "cpu":
            return  # there is nowhere to go
        with self._given_back():
            self._load()

    def hold(self, in_8_bits: Collection[nn.Module], in_cpu: Collection[nn.Module]) -> None:
        """See :class:`lora_trainer.hosts.base.TakenModel`."""
        with self._given_back():
            self.weights.choose(in_8_bits, in_cpu)
        release(self.device)

    def generate(self, request: GenerateRequest) -> GeneratedImage:
        """See :class:`lora_trainer.hosts.base.TakenModel`."""
        with self._given_back():
            self._here.clear()
            try:
                return self._picture(request)
            finally:
                self._load()

    def _refuse_another(self) -> None:
        if shared.sd_model is not self._model:
            raise HostBusyError(
                "The checkpoint was replaced or unloaded during training; load it, then resume the run."
            )

    def _need(self, part: Part) -> None:
        self._kept.add(part)
        if part not in self._here:
            with self._given_back():
                self._load()

    def _load(self) -> None:
        """What is kept, and on an accelerator nothing else of the model."""
        if self.device.type != "cpu":
            for part in PARTS:
                if part not in self._kept:
                    memory.send_away(self._patchers[part])
        memory.bring(self._patchers[part] for part in PARTS if part in self._kept)
        self._here = set(self._kept)

    @contextmanager
    def _given_back(self) -> Iterator[None]:
        """The WebUI's own tensors are in the model while the block lasts: it moves them, and knows them."""
        try:
            self.weights.put_back()
        except BaseException:  # no memory for them all: the run goes on as it was
            self.weights.take()
            raise
        self._let_go()
        try:
            yield
        finally:
            if self._neutral is not None:
                self._hold()

    def _hold(self) -> None:
        """Tensors that autograd can use, frozen; the embeddings of words as the WebUI uses them."""
        texts = text.transformers(self._model)
        held = self.weights.chosen() if "unet" in self._here else []
        let_go = held if has_own_memory(self.device) else []
        with ExitStack() as stack:
            stack.enter_context(ordinary_tensors([self.unet, *texts], text.in_fp32(self._model), let_go))
            stack.enter_context(frozen([self.unet, *texts]))
            del held, let_go  # else they are
            stack.callback(self.weights.put_back)
            if "unet" in self._here:
                self.weights.take()
            self._ours = stack.pop_all()

    def _let_go(self) -> None:
        stack, self._ours = self._ours, None
        if stack is not None:
            stack.close()
