"""What all adapters of a network share: strength, dropout, and the last input in the compute type."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Control:
    """What all layers of a network share: its strength, its dropout, and the last cast input."""

    multiplier: float = 1.0
    enabled: bool = True
    training: bool = True
    network_dropout: float = 0.0
    rank_dropout: float = 0.0
    module_dropout: float = 0.0
    step_key: tuple[int | str, ...] | None = None
    samples: tuple[int, ...] = (0,)
    timesteps: Tensor | None = None  # of the samples, [B] int64
    inputs: InputCache = field(default_factory=lambda: InputCache())

    @property
    def active(self) -> bool:
        """Whether the hooks change anything now."""
        return self.enabled and self.multiplier != 0

    @property
    def drops(self) -> bool:
        """Whether activations or ranks are dropped now."""
        return self.training and (self.network_dropout > 0 or self.rank_dropout > 0)


class InputCache:
    """The last input in the compute type, as rows: q, k and v share one copy of it instead of saving three."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Let go of the held input."""
        self._source: weakref.ref[Tensor] | None = None
        self._kind: tuple[object, ...] = ()
        self._rows: Tensor | None = None

    def rows(self, x: Tensor, like: Tensor, group: str) -> Tensor:
        """``x`` [..., C] as [N, C] in the type and on the device of ``like``; a view where that is possible.

        Args:
            group: of the layers that read the very same input one after the other, such as q, k and v. Between two
                groups a host may change an input in place; the tensor's version isn't asked, since inference tensors
                have none.
        """
        # Rows made without gradients are no use where x has them.
        kind = (group, x.requires_grad and torch.is_grad_enabled(), like.dtype, like.device)
        if self._rows is None or self._source is None or self._source() is not x or self._kind != kind:
            self._rows = x.reshape(-1, x.shape[-1]).to(like)
            self._source, self._kind = weakref.ref(x), kind
        return self._rows
