"""LoCon with Tucker decomposition (LyCORIS, https://arxiv.org/abs/2309.14859): up · core · down for large kernels.

``lora_down`` [rank, in, 1, 1] and ``lora_up`` [out, rank, 1, 1] are 1x1 convolutions around ``lora_mid``
[rank, rank, kh, kw]; the change is alpha/rank · Σ mid[i, j] up[:, i] down[j, :].
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from lora_trainer.config import NetworkConfig
from lora_trainer.network.adapter import Control
from lora_trainer.network.lora import LoraModule
from lora_trainer.network.targets import Target
from lora_trainer.network.weight import FactorAdapter, tucker, uniform
from lora_trainer.seeds import torch_generator

UP, MID, DOWN = "up", "mid", "down"
IN_FILE = MappingProxyType({UP: "lora_up.weight", MID: "lora_mid.weight", DOWN: "lora_down.weight"})


class TuckerModule(FactorAdapter):
    """The LoCon of one convolution, with a core of the kernel's size; the up weight is zero at first."""

    FILE_PARTS = MappingProxyType({**LoraModule.FILE_PARTS, IN_FILE[MID]: MID})
    LABEL = "LoCon with Tucker decomposition"
    SCALED = (UP,)
    IN_FILE = IN_FILE
    LORA_PLUS = frozenset({UP})

    @classmethod
    def create(
        cls, target: Target, rank: int, alpha: float, control: Control, seed: int, options: NetworkConfig
    ) -> TuckerModule:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        out, inputs, *kernel = target.shape
        generator = torch_generator(seed, "tucker", target.key)
        tensors = {
            UP: torch.zeros(out, rank, 1, 1),
            MID: uniform((rank, rank, *kernel), generator),
            DOWN: uniform((rank, inputs, 1, 1), generator),
        }
        return cls(target, rank, alpha, control, tensors)

    @staticmethod
    def rank_of(w: Mapping[str, Tensor]) -> int:
        """Rows of the down weight."""
        return int(w[DOWN].shape[0])

    @staticmethod
    def combine(w: Mapping[str, Tensor]) -> Tensor:
        """See :class:`lora_trainer.network.weight.FactorAdapter`."""
        return tucker(w[MID], w[UP].flatten(1).t(), w[DOWN].flatten(1))
