"""The best LoRA of a given rank for a change of a weight: the truncated singular value decomposition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lora_trainer.errors import ConfigError
from lora_trainer.network.lora import LoraWeights

Rule = Literal["", "sv_fro", "sv_ratio", "sv_cumulative"]
RULES: dict[Rule, str] = {  # sd-scripts' names (resize_lora.py)
    "sv_fro": "the smallest rank that keeps this share of the change's norm",
    "sv_ratio": "ranks with a singular value above the largest divided by this",
    "sv_cumulative": "the smallest rank that keeps this share of the sum of all singular values",
}
LARGEST = 1 << 30  # no limit
SMALLEST = 1e-6  # a change without a larger singular value is nothing


@dataclass(frozen=True)
class Wanted:
    """At most ``rank`` ranks (``conv_rank`` for kernels larger than 1x1), and no more than the rule asks for."""

    rank: int
    conv_rank: int
    rule: Rule = ""
    value: float = 0.0

    def of(self, singular: Tensor, large_kernel: bool) -> int:
        """The rank for these singular values, largest first."""
        most = min(self.conv_rank if large_kernel else self.rank, len(singular))
        if float(singular[0]) <= SMALLEST:
            return 1
        if not self.rule:
            return most
        return max(1, min(most, self._by_rule(singular) + 1))  # sd-scripts keeps one more than the rule's index

    def _by_rule(self, singular: Tensor) -> int:
        if self.rule == "sv_ratio":
            index = int((singular > singular[0] / self.value).sum())
        else:
            sizes, share = (singular**2, self.value**2) if self.rule == "sv_fro" else (singular, self.value)
            index = int(torch.searchsorted(sizes.cumsum(0) / sizes.sum(), share)) + 1
        return max(1, min(index, len(singular) - 1))


class Truncated(NamedTuple):
    """A change reduced to fewer ranks, and the share of its norm that is kept."""

    weights: LoraWeights
    kept: float


def truncate(left: Tensor, right: Tensor | None, shape: tuple[int, ...], scale: float, wanted: Wanted) -> Truncated:
    """The best LoRA of the wanted rank for ``scale`` · left · right.

    Args:
        left: [out, k].
        right: [k, in · kernel]; None if ``left`` is the whole change.
        shape: of the weight, [out, in(, kh, kw)].
        scale: kept as alpha/rank of the result.
    """
    left, right = left.double(), None if right is None else right.double()
    if right is not None and left.shape[1] < min(
        left.shape[0], right.shape[1]
    ):  # two small factors: only their core has to be decomposed
        (q1, r1), (q2, r2) = torch.linalg.qr(left), torch.linalg.qr(right.T)
        u, singular, v = torch.linalg.svd(r1 @ r2.T, full_matrices=False)
        u, v = q1 @ u, v @ q2.T
    else:
        u, singular, v = torch.linalg.svd(left if right is None else left @ right, full_matrices=False)
    rank = wanted.of(singular, len(shape) == 4 and shape[2:] != (1, 1))
    up, down = (u[:, :rank] * singular[:rank]).float(), v[:rank].float()
    ones = (1,) * (len(shape) - 2)
    total = float(singular.square().sum())
    kept = float(singular[:rank].square().sum()) / total if total else 1.0
    weights = LoraWeights(down.reshape(rank, *shape[1:]), up.reshape(-1, rank, *ones), scale * rank)
    return Truncated(weights, kept**0.5)


def wanted_by(rank: int | None, conv_rank: int | None, rules: Mapping[Rule, float]) -> Wanted:
    """What a person asks for: a rank, a rule, or both.

    Raises:
        ConfigError: if neither is given, or the rule's value makes no sense.
    """
    if len(rules) > 1 or (not rules and rank is None):
        raise ConfigError(f"Give a rank, and one of {', '.join(RULES)} where the rank shall follow from the file.")
    for rule, value in rules.items():
        good = value > 1 if rule == "sv_ratio" else 0 < value <= 1
        if not good:
            span = "above 1" if rule == "sv_ratio" else "above 0 and up to 1"
            raise ConfigError(f"{rule} can't be {value:g}; give a number {span}.")
        return Wanted(rank or LARGEST, conv_rank or rank or LARGEST, rule, value)
    return Wanted(rank or LARGEST, conv_rank or rank or LARGEST)


def in_all(kept: Sequence[float]) -> str:
    """A sentence on the shares that are kept of all modules."""
    return f"Of each change {min(kept):.1%} or more is kept, {sum(kept) / len(kept):.1%} on average."
