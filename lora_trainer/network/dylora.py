"""DyLoRA (Valipour et al. 2022, https://arxiv.org/abs/2210.07558): a LoRA whose first ranks are of use alone.

At every step each module draws a block of ``unit`` ranks. The ranks up to its end take part, scaled up by
√(rank / those) as sd-scripts does; of them only the block is trained. (In sd-scripts' own module all ranks take part;
in the paper and in LyCORIS those behind the block don't, without which fewer ranks wouldn't be of use.) The file is a
plain LoRA's, and all of its ranks are used.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lora_trainer.config import NetworkConfig
from lora_trainer.network.adapter import Control
from lora_trainer.network.lora import LoraModule
from lora_trainer.network.targets import Target


class DyLoraModule(LoraModule):
    """The LoRA of one weight, trained a block of ranks at a time."""

    def __init__(self, target: Target, rank: int, alpha: float, control: Control, seed: int, unit: int = 1) -> None:
        """``unit``: ranks of a block; the last is smaller where it doesn't divide ``rank``."""
        super().__init__(target, rank, alpha, control, seed)
        self.unit = unit

    @classmethod
    def create(
        cls, target: Target, rank: int, alpha: float, control: Control, seed: int, options: NetworkConfig
    ) -> DyLoraModule:
        """See :class:`lora_trainer.network.adapter.Kind`."""
        return cls(target, rank, alpha, control, seed, options.unit)

    @property
    def masked(self) -> bool:
        """Whether this is a step of training."""
        return self.control.training and self.control.step_key is not None

    @property
    def drops(self) -> bool:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        return self.masked or super().drops

    def block(self) -> tuple[int, int]:
        """First rank of this step's block, and the one behind its last."""
        blocks = math.ceil(self.rank / self.unit)
        first = self.unit * int(torch.randint(blocks, (), generator=self.generator("block")))
        return first, min(first + self.unit, self.rank)

    def factors(self) -> tuple[Tensor, Tensor, float]:
        """See :class:`lora_trainer.network.lora.LoraModule`: the ranks before the block without gradients."""
        if not self.masked:
            return super().factors()
        first, end = self.block()
        down = torch.cat([self.down[:first].detach(), self.down[first:]])
        up = torch.cat([self.up[:, :first].detach(), self.up[:, first:]], 1)
        return down, up, self.scale * math.sqrt(self.rank / end)

    def kept(self, inner: Tensor) -> Tensor:
        """Also 0 for the ranks behind the block."""
        kept = super().kept(inner) if super().drops else torch.ones((), dtype=inner.dtype, device=inner.device)
        if not self.masked:
            return kept
        mask = (torch.arange(self.rank, device=inner.device) < self.block()[1]).to(inner.dtype)
        return kept * (mask[:, None, None] if len(self.target.shape) == 4 else mask)
