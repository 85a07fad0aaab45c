"""Weights that autograd can use.

These WebUIs load and move their models in inference mode. Tensors made there can't be saved for a backward pass. A
second tensor on the same memory can: it costs nothing, and the WebUI's own one is put back in its place afterwards.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def ordinary_tensors(roots: Iterable[nn.Module], in_fp32: Collection[nn.Module] = ()) -> Iterator[None]:
    """Ordinary tensors in the place of inference tensors, on the same memory, for as long as the block lasts.

    Afterwards each weight and buffer is the very object that it was. One that was moved meanwhile is where it went.

    Args:
        in_fp32: modules whose floating-point numbers are converted copies in fp32.
    """
    swapped: list[tuple[dict[str, Any], str, Tensor, Tensor, int]] = []
    made: dict[int, Tensor] = {}
    try:
        for module in (module for root in roots for module in root.modules()):
            wide = module in in_fp32
            tables: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
            for table in tables:
                for name, theirs in list(table.items()):
                    if theirs is None or not _needed(theirs, wide):
                        continue
                    mine = made.setdefault(id(theirs), _ordinary(theirs, wide))
                    table[name] = mine
                    swapped.append((table, name, theirs, mine, mine.data_ptr()))
        yield
    finally:
        for table, name, theirs, mine, address in swapped:
            if table.get(name) is mine:
                table[name] = theirs if mine.data_ptr() == address else _moved(mine, theirs)


def _needed(tensor: Tensor, wide: bool) -> bool:
    return tensor.is_inference() or (wide and tensor.is_floating_point() and tensor.dtype != torch.float32)


def _ordinary(tensor: Tensor, wide: bool) -> Tensor:
    if wide and tensor.is_floating_point() and tensor.dtype != torch.float32:
        made = tensor.detach().to(torch.float32)
    else:
        made = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        made.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())
    return nn.Parameter(made, requires_grad=False) if isinstance(tensor, nn.Parameter) else made


def _moved(mine: Tensor, theirs: Tensor) -> Tensor:
    """What the WebUI has put elsewhere, in its own number format."""
    moved = mine.detach().to(theirs.dtype)
    return nn.Parameter(moved, requires_grad=False) if isinstance(theirs, nn.Parameter) else moved
