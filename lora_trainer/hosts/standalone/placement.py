"""Moving weights to a device and number format, and back to the very tensors that were read from the file."""

from __future__ import annotations

from collections.abc import Collection
from itertools import chain

import torch
from torch import Tensor, nn


class Placement:
    """Where a module's weights are. The originals are kept, so going back never rounds anything."""

    def __init__(self, module: nn.Module) -> None:
        self._originals = [(tensor, tensor.data) for tensor in chain(module.parameters(), module.buffers())]
        self.current: tuple[torch.device, torch.dtype] | None = None  # None: the originals

    def place(self, device: torch.device, dtype: torch.dtype, but: Collection[Tensor] = ()) -> None:
        """Put copies on ``device`` in ``dtype``, ``but`` for some; where nothing would change, the originals."""
        if self.current == (device, dtype):
            return
        left = set(map(id, but))
        for tensor, original in self._originals:
            if id(tensor) in left:
                continue
            tensor.data = original.to(device, dtype if original.is_floating_point() else original.dtype)
        self.current = (device, dtype)

    def restore(self) -> None:
        """Put the originals back and drop the copies."""
        for tensor, original in self._originals:
            tensor.data = original
        self.current = None
