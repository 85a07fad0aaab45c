"""Gradient checkpointing (Chen et al. 2016): recompute a block's inside in the backward pass instead of keeping it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

# Switches of the blocks' own checkpointing (ldm and sgm transformer and residual blocks, diffusers). ldm's version asks
# for gradients of the frozen weights and fails, so it has to be off.
OWN_SWITCHES = ("checkpoint", "use_checkpoint", "gradient_checkpointing")


Around = Callable[[nn.Module, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


@contextmanager
def checkpoint_blocks(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Recompute each block in the backward pass while the context lasts; keep only what enters and leaves it.

    Both the forward and the backward pass must happen inside the context. Blocks must not contain each other. Without
    gradients (previews) blocks run as they are. The autocast state of the forward pass holds in the recomputation; the
    global random state isn't kept, since frozen blocks draw nothing and LoRA dropout has generators of its own.
    """
    with around_blocks(blocks, _recomputed):
        yield


@contextmanager
def around_blocks(blocks: Sequence[nn.Module], around: Around) -> Iterator[None]:
    """Call ``around(block, forward, args, kwargs)`` in place of each block's forward, its own checkpointing off."""
    with ExitStack() as restore:
        for block in blocks:
            restore.callback(_switch_off_own(block))
            restore.callback(_replace_forward(block, around))
        yield


def _recomputed(block: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)


def _replace_forward(block: nn.Module, around: Around) -> Callable[[], None]:
    """Put a ``forward`` on the instance; returns what puts the former state back."""
    original = block.forward
    on_instance = "forward" in block.__dict__

    def forward(*args: Any, **kwargs: Any) -> Any:
        return around(block, original, args, kwargs)

    block.forward = forward  # type: ignore[method-assign]

    def put_back() -> None:
        if on_instance:
            block.forward = original  # type: ignore[method-assign]
        else:
            del block.forward

    return put_back


def _switch_off_own(block: nn.Module) -> Callable[[], None]:
    """Set the block's own checkpointing switches to False; returns what puts them back."""
    switched = [
        (module, name) for module in block.modules() for name in OWN_SWITCHES if module.__dict__.get(name) is True
    ]
    for module, name in switched:
        setattr(module, name, False)

    def put_back() -> None:
        for module, name in switched:
            setattr(module, name, True)

    return put_back
