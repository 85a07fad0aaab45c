"""Moving weights to a device and number format, and back to the very tensors that were read from the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import nn


class Placement:
    """Where a module's weights are. The originals are kept, so going back never rounds anything."""

    def __init__(self, module: nn.Module) -> None:
        self._originals = [(tensor, tensor.data) for tensor in chain(module.parameters(), module.buffers())]
        self.current: tuple[torch.device, torch.dtype] | None = None  # None: the originals

    def place(self, device: torch.device, dtype: torch.dtype) -> None:
        """Put copies on ``device`` in ``dtype``; where nothing would change, the originals themselves."""
        if self.current == (device, dtype):
            return
        for tensor, original in self._originals:
            tensor.data = original.to(device, dtype if original.is_floating_point() else original.dtype)
        self.current = (device, dtype)

    def restore(self) -> None:
        """Put the originals back and drop the copies."""
        for tensor, original in self._originals:
            tensor.data = original
        self.current = None


@contextmanager
def frozen(modules: Iterable[nn.Module]) -> Iterator[None]:
    """No gradients and eval mode for ``modules`` while the context lasts; afterwards as it was, weight by weight."""
    modules = list(modules)
    gradients = [(weight, weight.requires_grad) for module in modules for weight in module.parameters()]
    modes = [(part, part.training) for module in modules for part in module.modules()]
    try:
        for module in modules:
            module.requires_grad_(False)
            module.eval()
        yield
    finally:
        for weight, wanted in gradients:
            weight.requires_grad_(wanted)
            weight.grad = None
        for part, training in modes:
            part.training = training
