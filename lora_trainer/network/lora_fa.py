"""LoRA-FA (Zhang et al. 2023, https://arxiv.org/abs/2308.03303): LoRA whose down weight stays as it was drawn.

Only ``up`` is trained, so gradients and the optimiser's states need half the memory. The file is a plain LoRA's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lora_trainer.network.adapter import Control
from lora_trainer.network.lora import LoraModule
from lora_trainer.network.targets import Target


class LoraFaModule(LoraModule):
    """The LoRA of one weight with a frozen ``down``."""

    def __init__(self, target: Target, rank: int, alpha: float, control: Control, seed: int) -> None:
        super().__init__(target, rank, alpha, control, seed)
        self._down: Tensor = self.weights.pop("down").requires_grad_(False)

    @property
    def down(self) -> Tensor:
        """[rank, in(, kh, kw)]."""
        return self._down

    def to(self, device: torch.device | str) -> None:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        super().to(device)
        self._down = self._down.to(device)

    @torch.no_grad()
    def shrink(self, ratio: Tensor) -> None:
        """Only ``up`` may change."""
        self.up.mul_(ratio)
