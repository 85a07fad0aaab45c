"""T-LoRA (Soboleva et al. 2025, https://arxiv.org/abs/2507.05964): LoRA whose rank depends on the timestep.

At the noisiest timesteps a LoRA of few images learns where things stand in them; there only the first ranks are
trained, and all of them where little noise is left. Only training is masked: the file is a plain LoRA's, and is used
whole at every timestep. The paper's orthogonal initialisation isn't done, which would need a file of twice the rank.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lora_trainer.config import NetworkConfig
from lora_trainer.network.adapter import Control
from lora_trainer.network.lora import LoraModule
from lora_trainer.network.targets import Target

TIMESTEPS = 1000  # of every model that can be trained


class TLoraModule(LoraModule):
    """The LoRA of one weight; that of a text encoder's, which knows no timestep, is a plain one."""

    def __init__(
        self, target: Target, rank: int, alpha: float, control: Control, seed: int, min_rank: float = 0.5
    ) -> None:
        """``min_rank``: share of the ranks that is trained at the noisiest timestep."""
        super().__init__(target, rank, alpha, control, seed)
        self.least = max(1, int(rank * min_rank))

    @classmethod
    def create(
        cls, target: Target, rank: int, alpha: float, control: Control, seed: int, options: NetworkConfig
    ) -> TLoraModule:
        """See :class:`lora_trainer.network.adapter.Kind`."""
        return cls(target, rank, alpha, control, seed, options.tlora_min_rank)

    @property
    def masked(self) -> bool:
        """Whether the ranks depend on a timestep now."""
        control = self.control
        return control.training and control.timesteps is not None and self.target.part == "unet"

    @property
    def drops(self) -> bool:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        return self.masked or super().drops

    def kept(self, inner: Tensor) -> Tensor:
        """Also 0 for the ranks that an image's timestep leaves out; what is left isn't scaled up for them."""
        kept = super().kept(inner) if super().drops else torch.ones((), dtype=inner.dtype, device=inner.device)
        if not self.masked or self.control.timesteps is None:
            return kept
        mask = rank_mask(self.control.timesteps.to(inner.device), self.rank, self.least).to(inner.dtype)
        shape = (self.rank, 1, 1) if len(self.target.shape) == 4 else (*(1 for _ in inner.shape[1:-1]), self.rank)
        return kept * mask.view(len(mask), *shape)


def rank_mask(timesteps: Tensor, rank: int, least: int) -> Tensor:
    """Which ranks take part, bool [B, rank]: the first ⌊(rank − least)·(T − t)/T⌋ + least of them at timestep t [B]."""
    count = (TIMESTEPS - timesteps) * (rank - least) // TIMESTEPS + least
    return torch.arange(rank, device=timesteps.device) < count[:, None]
