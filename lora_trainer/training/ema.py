"""The moving average of the trained weights (EMA): steadier than the weights of any one step.

After its n-th step the average moves by 1 − d towards the weights, with d = min(decay, (1 + n) / (10 + n)), so that the
first steps don't weigh on it (as in diffusers' training_utils).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Ema:
    """The average of some parameters; it begins with the values that they have now."""

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay, self.steps = list(parameters), decay, 0
        self.average: list[Tensor] = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def step(self) -> None:
        """Take in the present values."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.average, [parameter.data for parameter in self.parameters], 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """While it lasts, the parameters hold the average."""
        kept = [parameter.detach().clone() for parameter in self.parameters]
        self._fill(self.average)
        try:
            yield
        finally:
            self._fill(kept)

    @torch.no_grad()
    def _fill(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """What continues it bit for bit."""
        return {"steps": self.steps, "average": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`.

        Raises:
            ValueError: if it is of other parameters.
        """
        given = state["average"]
        if [tensor.shape for tensor in given] != [tensor.shape for tensor in self.average]:
            raise ValueError("the average is of other weights")
        self.steps = int(state["steps"])
        for own, tensor in zip(self.average, given, strict=True):
            own.copy_(tensor)
