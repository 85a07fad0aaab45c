"""What a taken model predicts with its own weights, and with weights that are held in another way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class HeldModel:
    """A taken model whose blocks' weights are held in 8 bits, two of them in CPU memory."""

    def __init__(self, taken: Any) -> None:
        self._taken, self._inputs = taken, (torch.ones(1, 4, 8, 8), torch.tensor([500]))
        self._condition = taken.encode_captions(["x"], 75, 1)
        self.exact = self.predicted()
        taken.hold(taken.blocks(), taken.blocks()[:2])
        self.coarse = self.predicted()
        assert not torch.equal(self.coarse, self.exact) and torch.allclose(self.coarse, self.exact, atol=0.1)

    def predicted(self) -> Tensor:
        """As a run has it."""
        with torch.no_grad():
            return self._taken.predict(*self._inputs, self._condition, [])

    def has_its_own(self) -> bool:
        """Whether whoever else uses the UNet now has the model's own weights."""
        with torch.no_grad():
            own = self._taken.unet(*self._inputs, context=self._condition.context)
        near, far = ((own - other).abs().max() for other in (self.exact, self.coarse))
        return bool(near < 0.01 * far)
