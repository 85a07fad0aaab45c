"""What the WebUI may have done to the model, undone for training and done again afterwards.

Each of these is a context manager of its own; they are put on and taken off together by :func:`neutral`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from modules import sd_hijack, sd_models, sd_unet, shared
from torch import nn

from lora_trainer.hosts.a1111 import merged
from lora_trainer.hosts.frozen import frozen

log = logging.getLogger(__name__)

FUSED_ATTENTION = ("xformers", "sdp", "sdp-no-mem")  # keep no table of every token by every token for the way back
SDP = "sdp - scaled dot product"


@contextmanager
def neutral(model: Any, bring: Callable[[nn.Module], None]) -> Iterator[None]:
    """The bare checkpoint, frozen, for as long as the block lasts; everything is put back, whatever happens.

    Args:
        bring: moves a part of the model to the accelerator where the WebUI moves parts about (--medvram).
    """
    roots = (model.model, model.first_stage_model, model.cond_stage_model)
    with ExitStack() as stack:
        merged.restore_base(model)
        for put_on in (
            without_parallel_previews(), without_hypernetworks(), without_alternative_unet(), without_tiling(),
            without_token_merging(model), without_own_checkpointing(model), frozen(roots),
        ):  # fmt: skip
            stack.enter_context(put_on)
        bring(model.model)
        stack.enter_context(trainable_attention(model))
        yield


@contextmanager
def without_parallel_previews() -> Iterator[None]:
    """The page's progress requests don't decode latents in their own thread, with a VAE that may be elsewhere."""
    before = shared.parallel_processing_allowed
    shared.parallel_processing_allowed = False
    try:
        yield
    finally:
        shared.parallel_processing_allowed = before


@contextmanager
def without_hypernetworks() -> Iterator[None]:
    """Every attention layer would apply them."""
    before = shared.loaded_hypernetworks
    shared.loaded_hypernetworks = []
    try:
        yield
    finally:
        shared.loaded_hypernetworks = before


@contextmanager
def without_alternative_unet() -> Iterator[None]:
    """A TensorRT engine or the like takes the UNet's place in every call."""
    before = sd_unet.current_unet_option
    if before is not None:
        sd_unet.apply_unet("None")
    try:
        yield
    finally:
        if before is not None and sd_unet.current_unet_option is not before:
            sd_unet.apply_unet(before.label)


@contextmanager
def without_tiling() -> Iterator[None]:
    """After a tiled picture all convolutions stay circular until the next one."""
    hijack = sd_hijack.model_hijack
    before = hijack.circular_enabled
    hijack.apply_circular(False)
    try:
        yield
    finally:
        hijack.apply_circular(before)


@contextmanager
def without_token_merging(model: Any) -> Iterator[None]:
    """It leaves tokens out of the attention."""
    before = getattr(model, "applied_token_merged_ratio", 0)
    sd_models.apply_token_merging(model, 0)
    try:
        yield
    finally:
        sd_models.apply_token_merging(model, before)


@contextmanager
def without_own_checkpointing(model: Any) -> Iterator[None]:
    """ldm's and sgm's recomputation asks for gradients of the frozen weights and fails."""
    switched = [
        (module, name)
        for module in model.model.modules()
        for name in ("checkpoint", "use_checkpoint")
        if vars(module).get(name) is True
    ]
    try:
        for module, name in switched:
            setattr(module, name, False)
        yield
    finally:
        for module, name in switched:
            setattr(module, name, True)


@contextmanager
def trainable_attention(model: Any) -> Iterator[None]:
    """Torch's own fused attention, unless another fused one is chosen that gives gradients (some of xformers' don't).

    A1111's choice for most cards, Doggettx, would double and more what a step keeps in memory.
    """
    before = sd_hijack.current_optimizer
    fits = _gradient_flows(model)
    fused = fits and getattr(before, "name", "") in FUSED_ATTENTION
    known = any(one.title() == SDP for one in sd_hijack.optimizers)
    if fused or (fits and not known):
        yield
        return
    if not fits:
        name = getattr(before, "name", "of the WebUI")
        log.warning("The cross-attention method %s can't be trained with; using sdp instead.", name)
    hijack = sd_hijack.model_hijack
    hijack.apply_optimizations(SDP)
    try:
        yield
    finally:
        if before is None:
            hijack.apply_optimizations("None")
        else:
            hijack.apply_optimizations(before.title())


def _gradient_flows(model: Any) -> bool:
    """Try the UNet's first attention forwards and backwards."""
    attention: Any = next((m for m in model.model.diffusion_model.modules() if hasattr(m, "to_q")), None)
    if attention is None:
        return True
    weight = attention.to_q.weight
    generator = torch.Generator("cpu").manual_seed(0)
    x = torch.randn(1, 64, weight.shape[1], generator=generator).to(weight).requires_grad_(True)
    context = torch.randn(1, 77, attention.to_k.weight.shape[1], generator=generator).to(weight)
    itself = attention.to_k.weight.shape[1] == weight.shape[1]
    try:
        with torch.enable_grad():
            attention(x, None if itself else context).float().sum().backward()
    except (RuntimeError, NotImplementedError, ValueError) as error:
        log.info("Trying the attention: %s", error)
        return False
    return x.grad is not None and bool(torch.isfinite(x.grad).all())
