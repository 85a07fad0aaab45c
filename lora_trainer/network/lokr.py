"""LoKr (Edalati et al. 2022, https://arxiv.org/abs/2212.10650; in LyCORIS): the change is alpha/rank · W₁ ⊗ W₂.

The outputs and the inputs of the weight are each split into two factors; W₁ has the smaller ones. W₂, and with
``decompose_both`` W₁ too, is a product of two matrices of the rank where that is smaller than the whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from lora_trainer.config import NetworkConfig
from lora_trainer.network.adapter import Control
from lora_trainer.network.targets import Target
from lora_trainer.network.weight import FactorAdapter, WeightsOfFile, tucker, uniform
from lora_trainer.seeds import torch_generator

PARTS = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2", "alpha")


def split(size: int, factor: int) -> tuple[int, int]:
    """Two factors of ``size``, the smaller first: ``factor`` where it divides, else the largest up to it (-1: of all)
    that isn't above the square root."""
    if factor > 0 and size % factor == 0:
        return min(factor, size // factor), max(factor, size // factor)
    limit = math.isqrt(size) if factor < 0 else min(factor, math.isqrt(size))
    smaller = max((divisor for divisor in range(1, limit + 1) if size % divisor == 0), default=1)
    return smaller, size // smaller


class LokrModule(FactorAdapter):
    """The LoKr of one weight; what makes up W₂ is zero at first."""

    FILE_PARTS = MappingProxyType({part: part for part in PARTS})
    LABEL = "LoKr"
    SCALED = ("lokr_w2", "lokr_w2_b")

    @classmethod
    def create(
        cls, target: Target, rank: int, alpha: float, control: Control, seed: int, options: NetworkConfig
    ) -> LokrModule:
        """See :class:`lora_trainer.network.adapter.Adapter`; drawn as LyCORIS draws it."""
        out, inputs, *kernel = target.shape
        generator = torch_generator(seed, "lokr", target.key)
        (o, k), (m, n) = split(out, options.factor), split(inputs, options.factor)
        tensors: dict[str, Tensor] = {}
        if options.decompose_both and rank < max(o, m) / 2 and not options.full_matrix:
            tensors |= {"lokr_w1_a": uniform((o, rank), generator), "lokr_w1_b": uniform((rank, m), generator)}
        else:
            tensors["lokr_w1"] = uniform((o, m), generator)
        if options.full_matrix or rank >= max(k, n) / 2:
            tensors["lokr_w2"] = torch.zeros(k, n, *kernel)
        elif options.use_tucker and target.large_kernel:
            tensors["lokr_t2"] = uniform((rank, rank, *kernel), generator)
            tensors |= {"lokr_w2_a": uniform((rank, k), generator), "lokr_w2_b": torch.zeros(rank, n)}
        else:
            width = n * math.prod(kernel)
            tensors |= {"lokr_w2_a": uniform((k, rank), generator), "lokr_w2_b": torch.zeros(rank, width)}
        if tensors.keys() == {"lokr_w1", "lokr_w2"}:  # both whole: there is no rank, and all programs take 1 for scale
            rank, alpha = 1, 1.0
        return cls(target, rank, alpha, control, tensors)

    @staticmethod
    def rank_of(w: Mapping[str, Tensor]) -> int:
        """Rows of the second factor, W₂'s before W₁'s; 1 where both are whole."""
        factor = w.get("lokr_w2_b", w.get("lokr_w1_b"))
        return 1 if factor is None else int(factor.shape[0])

    @classmethod
    def read(cls, path: Path, key: str, parts: Mapping[str, Tensor]) -> WeightsOfFile:
        """See :class:`lora_trainer.network.adapter.Adapter`; where both are whole, alpha says nothing."""
        whole = {"lokr_w1", "lokr_w2"} <= parts.keys()
        return super().read(path, key, {**parts, "alpha": torch.tensor(1.0)} if whole else parts)

    def file_parts(self) -> dict[str, Tensor]:
        """See :class:`lora_trainer.network.adapter.Adapter`; a whole W₂ has the kernel of the weight."""
        parts = super().file_parts()
        if self.target.conv_in_file and "lokr_w2" in parts and parts["lokr_w2"].dim() == 2:
            parts["lokr_w2"] = parts["lokr_w2"][:, :, None, None]
        return parts

    @staticmethod
    def combine(w: Mapping[str, Tensor]) -> Tensor:
        """See :class:`lora_trainer.network.weight.FactorAdapter`."""
        first = w["lokr_w1"] if "lokr_w1" in w else w["lokr_w1_a"] @ w["lokr_w1_b"]
        if "lokr_w2" in w:
            second = w["lokr_w2"]
        elif "lokr_t2" in w:
            second = tucker(w["lokr_t2"], w["lokr_w2_a"], w["lokr_w2_b"])
        else:
            second = w["lokr_w2_a"] @ w["lokr_w2_b"]
        return torch.kron(first[..., None, None] if second.dim() == 4 else first, second.contiguous())
