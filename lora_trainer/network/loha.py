"""LoHa (Hyeon-Woo et al. 2021, https://arxiv.org/abs/2108.06098; in LyCORIS): alpha/rank · (A₁B₁) ∘ (A₂B₂).

The elementwise product of two matrices of rank r can have rank r², so LoHa is expressive for the size of its file. With
Tucker decomposition each of the two is Σ t[i, j] a[i, :] b[j, :], with a core ``t`` of the kernel's size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from lora_trainer.config import NetworkConfig
from lora_trainer.network.adapter import Control
from lora_trainer.network.targets import Target
from lora_trainer.network.weight import FactorAdapter, normal, tucker
from lora_trainer.seeds import torch_generator

PARTS = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2", "alpha")


class LohaModule(FactorAdapter):
    """The LoHa of one weight: ``hada_w1_a`` [out, rank], ``hada_w1_b`` [rank, in · kernel], and the second pair; with
    Tucker decomposition [rank, out], [rank, in] and ``hada_t1`` [rank, rank, kh, kw]. The second a is zero at first."""

    FILE_PARTS = MappingProxyType({part: part for part in PARTS})
    LABEL = "LoHa"
    SCALED = ("hada_w2_a",)

    @classmethod
    def create(
        cls, target: Target, rank: int, alpha: float, control: Control, seed: int, options: NetworkConfig
    ) -> LohaModule:
        """See :class:`lora_trainer.network.adapter.Adapter`; drawn as LyCORIS draws it."""
        out, inputs, *kernel = target.shape
        generator = torch_generator(seed, "loha", target.key)
        cores = options.use_tucker and target.large_kernel
        a = (rank, out) if cores else (out, rank)
        b = (rank, inputs if cores else inputs * math.prod(kernel))
        tensors = {
            "hada_w1_a": normal(a, 0.1, generator),
            "hada_w1_b": normal(b, 1.0, generator),
            "hada_w2_a": torch.zeros(a),
            "hada_w2_b": normal(b, 1.0, generator),
        }
        if cores:
            tensors |= {name: normal((rank, rank, *kernel), 0.1, generator) for name in ("hada_t1", "hada_t2")}
        return cls(target, rank, alpha, control, tensors)

    @staticmethod
    def rank_of(w: Mapping[str, Tensor]) -> int:
        """Rows of b."""
        return int(w["hada_w1_b"].shape[0])

    @staticmethod
    def combine(w: Mapping[str, Tensor]) -> Tensor:
        """See :class:`lora_trainer.network.weight.FactorAdapter`."""
        if "hada_t1" in w or "hada_t2" in w:
            first = tucker(w["hada_t1"], w["hada_w1_a"], w["hada_w1_b"])
            return first * tucker(w["hada_t2"], w["hada_w2_a"], w["hada_w2_b"])
        return (w["hada_w1_a"] @ w["hada_w1_b"]) * (w["hada_w2_a"] @ w["hada_w2_b"])
