"""The WebUI's model while a run holds it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from modules import devices, shared
from torch import Tensor, nn

from lora_trainer.errors import HostBusyError
from lora_trainer.frozen_weights.held import FrozenWeights
from lora_trainer.hosts.a1111 import checkpoint, text, vae
from lora_trainer.hosts.a1111.neutral import neutral
from lora_trainer.hosts.base import (
    PARTS,
    Conditioning,
    GeneratedImage,
    GenerateRequest,
    Part,
    SizeConditioning,
    TextEncoder,
)

RECOMPUTED = ("BasicTransformerBlock", "ResBlock")


class A1111Model:
    """A :class:`lora_trainer.hosts.base.TakenModel` on ``shared.sd_model`` itself.

    Args:
        model: the WebUI's model.
        picture: makes a picture with it, live hooks and all.
    """

    def __init__(self, model: Any, picture: Callable[[GenerateRequest], GeneratedImage]) -> None:
        self._model, self._picture = model, picture
        self._neutral: ExitStack | None = None
        self._away: set[Part] = set()
        self.device = torch.device(devices.device)
        self.apart = bool(model.lowvram)
        self.unet: nn.Module = model.model.diffusion_model
        self.weights = FrozenWeights(self.unet, self.device)
        self.text_encoders: Sequence[TextEncoder] = checkpoint.encoders(model)
        self.alphas_cumprod = model.alphas_cumprod_original.detach().float().cpu()
        self.open()
        try:
            self.info = checkpoint.describe(model)
        except BaseException:
            self.close()
            raise

    def open(self) -> None:
        """Take the model: what the WebUI did to it is undone, parts that were away are sent away again."""
        self.check()
        stack = ExitStack()
        stack.enter_context(neutral(self._model, self.bring))
        self._neutral = stack
        for part in self._away:
            self._move(part, torch.device("cpu"))
        if "unet" not in self._away:
            self.weights.take()

    def close(self) -> None:
        """Give it back as it was; does nothing if it is back."""
        if self._neutral is None:
            return
        stack, self._neutral = self._neutral, None
        with stack:
            self.weights.put_back()
            if shared.sd_model is self._model:
                for part in self._away:
                    self._move(part, self.device)

    def check(self) -> None:
        """Whether the model is still there.

        Raises:
            HostBusyError: if somebody unloaded or replaced it.
        """
        where = next(self._model.model.parameters()).device.type
        if shared.sd_model is not self._model or where == "meta":
            raise HostBusyError(
                "The checkpoint was replaced or unloaded during training; load it, then resume the run."
            )
        if not self.apart and "unet" not in self._away and where != self.device.type:
            raise HostBusyError(
                "The checkpoint was unloaded during training (by the API or Settings → Actions); load it, then "
                "resume the run."
            )

    def bring(self, module: nn.Module) -> None:
        """Under --medvram: put this part on the accelerator and what is there elsewhere, as the WebUI does."""
        if self.apart:
            for hook in list(module._forward_pre_hooks.values()):
                hook(module, ())

    def encode_images(self, pixels: Tensor, tile: int = 0) -> tuple[Tensor, Tensor]:
        """See :class:`lora_trainer.hosts.base.TakenModel`."""
        self._back("vae")
        return vae.latent_moments(self._model, pixels, tile)

    def encode_captions(self, captions: Sequence[str], max_token_length: int, clip_skip: int) -> Conditioning:
        """See :class:`lora_trainer.hosts.base.TakenModel`."""
        self._back("text_encoders")
        return text.encode_captions(self._model, captions, max_token_length, clip_skip)

    def predict(
        self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, sizes: Sequence[SizeConditioning]
    ) -> Tensor:
        """See :class:`lora_trainer.hosts.base.TakenModel`."""
        self._back("unet")
        condition: dict[str, Any]  # a new one every time: the WebUI casts its entries in place
        if conditioning.pooled is not None:
            vector = torch.cat([conditioning.pooled, text.size_vector(self._model, sizes)], dim=1)
            condition = {"crossattn": conditioning.context, "vector": vector}
        else:
            condition = {"c_crossattn": [conditioning.context]}
        try:
            predicted: Tensor = self._model.apply_model(noisy, timesteps, condition)
        except RuntimeError:
            self.check()  # the reason, if the weights went away in the middle
            raise
        return predicted.float()

    def blocks(self) -> list[nn.Module]:
        """See :class:`lora_trainer.hosts.base.TakenModel`."""
        return [module for module in self.unet.modules() if type(module).__name__ in RECOMPUTED]

    def modules(self, part: Part) -> list[nn.Module]:
        """See :class:`lora_trainer.hosts.base.TakenModel`."""
        held = {"unet": "model", "vae": "first_stage_model", "text_encoders": "cond_stage_model"}[part]
        return [getattr(self._model, held)]

    def hold(self, in_8_bits: Collection[nn.Module], in_cpu: Collection[nn.Module]) -> None:
        """See :class:`lora_trainer.hosts.base.TakenModel`."""
        self.weights.put_back()
        self.weights.choose(in_8_bits, in_cpu)
        if self.apart:
            self._swap_in("unet")
        elif "unet" not in self._away:
            self.weights.take()
        devices.torch_gc()

    def keep(self, parts: Collection[Part]) -> None:
        """See :class:`lora_trainer.hosts.base.TakenModel`."""
        if self.apart:
            self._swap_in(next(part for part in PARTS if part in parts))
            devices.torch_gc()
            return
        if self.device.type == "cpu":
            return  # there is nowhere to go
        for part in PARTS:
            if part not in parts and part not in self._away:
                self._away.add(part)
                if part == "unet":
                    self.weights.put_back()
                self._move(part, torch.device("cpu"))
        devices.torch_gc()
        for part in parts:
            self._back(part)

    def generate(self, request: GenerateRequest) -> GeneratedImage:
        """See :class:`lora_trainer.hosts.base.TakenModel`."""
        kept = [part for part in PARTS if part not in self._away]
        try:
            for part in self._away.copy():
                self._back(part)
            self.weights.put_back()  # the WebUI's own code, and its extensions', is at work
            return self._picture(request)
        finally:
            self.keep(kept)
            if "unet" in kept:
                self.weights.take()

    def _swap_in(self, part: Part) -> None:
        """Under --medvram: this part on the accelerator, in the place of another."""
        self.bring(self.modules(part)[0])
        if part == "unet":
            self.weights.take()
        else:
            self.weights.put_back()

    def _back(self, part: Part) -> None:
        if self.apart:
            self._swap_in(part)
        elif part in self._away:
            self._away.discard(part)
            self._move(part, self.device)
            if part == "unet":
                self.weights.take()

    def _move(self, part: Part, device: torch.device) -> None:
        for module in self.modules(part):
            module.to(device)
