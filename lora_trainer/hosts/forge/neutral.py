"""What the WebUI does to the model, undone for training and done again afterwards.

Each of these is a context manager of its own; they are put on and taken off together by :func:`neutral`. What its
extensions do (token merging, FreeU, ControlNet) is in options of a call that training doesn't pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from modules import processing, shared
from torch import Tensor, nn

from lora_trainer.errors import UnsupportedModelError
from lora_trainer.hosts.forge.backend import FUSED, USED, unet_module

NORMS = ("norm1", "norm2", "norm3")


@contextmanager
def neutral(model: Any, blocks: Sequence[nn.Module]) -> Iterator[None]:
    """The bare checkpoint for as long as the block lasts; everything is put back, whatever happens.

    Args:
        blocks: the UNet's transformer blocks.
    """
    with ExitStack() as stack:
        stack.enter_context(replaced(shared, "parallel_processing_allowed", False))  # previews in their own thread
        stack.enter_context(without_tiling(model))
        stack.enter_context(replaced(unet_module, USED, FUSED))
        stack.enter_context(inputs_kept(blocks))
        yield


@contextmanager
def replaced(holder: Any, name: str, value: Any) -> Iterator[None]:
    """Another value of an attribute; nothing where the WebUI has none of that name."""
    if not hasattr(holder, name):
        yield
        return
    before = getattr(holder, name)
    setattr(holder, name, value)
    try:
        yield
    finally:
        setattr(holder, name, before)


@contextmanager
def without_tiling(model: Any) -> Iterator[None]:
    """After a tiled picture all convolutions stay circular until the next one."""
    before = model.tiling_enabled
    off = "None" if isinstance(before, str) else False  # one of these WebUIs tiles by axis
    if before == off:
        yield
        return
    processing.apply_circular_forge(model, off)
    try:
        yield
    finally:
        processing.apply_circular_forge(model, before)


@contextmanager
def inputs_kept(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Blocks that add to their input in place do so to a copy.

    ``x += n`` overwrites what the norms before it saved for the backward pass, and what recomputation begins from. The
    copy at the start of a block has to be made inside of what is recomputed, hence in its ``forward``. With that copy
    alone gradients would be wrong without an error: recomputation gives the norms tensors that are changed afterwards.
    """
    if not blocks or not _writes_to_its_input(blocks[0]):
        yield
        return
    hooks = [
        getattr(block, name).register_forward_pre_hook(_copy_first)
        for block in blocks
        for name in NORMS
        if isinstance(getattr(block, name, None), nn.Module)
    ]
    before = [(block, block.__dict__.get("forward")) for block in blocks]
    try:
        for block in blocks:
            block.forward = _on_a_copy(block.forward)  # type: ignore[method-assign]
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for block, forward in before:
            if forward is None:
                block.__dict__.pop("forward", None)
            else:
                block.forward = forward  # type: ignore[method-assign]


def _on_a_copy(forward: Any) -> Any:
    def copying(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        return forward(x.clone(), *args, **kwargs)

    return copying


def _copy_first(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (args[0].clone(), *args[1:])


def _writes_to_its_input(block: Any) -> bool:
    """Try a transformer block on a few numbers."""
    weight, context = block.attn1.to_q.weight, block.attn2.to_k.weight
    try:
        with torch.no_grad():
            x = torch.ones(1, 4, weight.shape[1], device=weight.device, dtype=weight.dtype)
            version = x._version
            block(x, context=torch.ones(1, 4, context.shape[1]).to(x), transformer_options={})
    except RuntimeError as error:
        raise UnsupportedModelError(f"The UNet's transformer blocks can't be tried out ({error}).") from error
    return bool(x._version != version)
