"""Weights that autograd can use.

These WebUIs load and move their models in inference mode. Tensors made there can't be saved for a backward pass. A
second tensor on the same memory can: it costs nothing, and the WebUI's own one is put back in its place afterwards.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class _Swap(NamedTuple):
    table: dict[str, Any]  # a module's parameters or buffers
    name: str
    theirs: Tensor | None  # None where it isn't kept
    mine: Tensor
    address: int


@contextmanager
def ordinary_tensors(
    roots: Iterable[nn.Module], in_fp32: Collection[nn.Module] = (), let_go: Iterable[Tensor] = ()
) -> Iterator[None]:
    """Ordinary tensors in the place of inference tensors, on the same memory, for as long as the block lasts.

    Afterwards each weight and buffer is the very object that it was. One that was moved meanwhile is where it went.

    Args:
        in_fp32: modules whose floating-point numbers are converted copies in fp32.
        let_go: weights whose own tensor isn't kept, so that what they take on a card is free while they are elsewhere;
            afterwards a new one is in its place.
    """
    passing = {id(tensor) for tensor in let_go}
    del let_go  # it may hold them, as any variable here would
    swaps: list[_Swap] = []
    made: dict[int, Tensor] = {}
    try:
        for module in (module for root in roots for module in root.modules()):
            for table in (module._parameters, module._buffers):
                for name in table:
                    swaps += _swapped(table, name, module in in_fp32, passing, made)
        yield
    finally:
        for swap in swaps:
            if swap.table.get(swap.name) is swap.mine:
                swap.table[swap.name] = _theirs(swap)


def _swapped(
    table: dict[str, Any], name: str, wide: bool, passing: Collection[int], made: dict[int, Tensor]
) -> list[_Swap]:
    theirs = table[name]
    if theirs is None or not _needed(theirs, wide):
        return []
    mine = table[name] = made.setdefault(id(theirs), _ordinary(theirs, wide))
    return [_Swap(table, name, None if id(theirs) in passing else theirs, mine, mine.data_ptr())]


def _theirs(swap: _Swap) -> Tensor:
    mine, theirs = swap.mine, swap.theirs
    if theirs is None:
        with torch.inference_mode():  # on the same memory: all others are still there, and a card hasn't room for two
            return nn.Parameter(_on_the_memory_of(mine), requires_grad=False)
    return theirs if mine.data_ptr() == swap.address else _moved(mine, theirs)


def _needed(tensor: Tensor, wide: bool) -> bool:
    return tensor.is_inference() or (wide and tensor.is_floating_point() and tensor.dtype != torch.float32)


def _ordinary(tensor: Tensor, wide: bool) -> Tensor:
    if wide and tensor.is_floating_point() and tensor.dtype != torch.float32:
        made = tensor.detach().to(torch.float32)
    else:
        made = _on_the_memory_of(tensor)
    return nn.Parameter(made, requires_grad=False) if isinstance(tensor, nn.Parameter) else made


def _on_the_memory_of(tensor: Tensor) -> Tensor:
    made = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return made.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())


def _moved(mine: Tensor, theirs: Tensor) -> Tensor:
    """What the WebUI has put elsewhere, in its own number format."""
    moved = mine.detach().to(theirs.dtype)
    return nn.Parameter(moved, requires_grad=False) if isinstance(theirs, nn.Parameter) else moved
