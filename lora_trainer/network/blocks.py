"""Ranks, alphas and learning-rate factors by block of the UNet (sd-scripts' block_dims, down_lr_weight and so on)."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from lora_trainer.config import NetworkConfig
from lora_trainer.config.lr_weights import read_lr_weights
from lora_trainer.errors import ConfigError
from lora_trainer.families import Family, Traits, traits
from lora_trainer.network.targets import Target

logger = logging.getLogger(__name__)
Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class BlockPlan:
    """Rank, alpha and learning-rate factor of every target. ``weights`` is None when no factor is set."""

    config: NetworkConfig
    family: Family
    weights: tuple[float, ...] | None

    @classmethod
    def of(cls, config: NetworkConfig, family: Family) -> BlockPlan:
        """Check the lists of a configuration.

        Raises:
            ConfigError: names the list, its length and the length that the family needs.
        """
        for name in ("block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas"):
            numbers = getattr(config, name)
            if numbers and len(numbers) != traits(family).blocks:
                raise ConfigError(
                    f"{name} has {len(numbers)} numbers; {traits(family).label} needs {traits(family).blocks}, "
                    "one a block."
                )
            if min(numbers, default=0) < 0:
                raise ConfigError(f"{name} can't have {min(numbers)}; use 0 to leave a block out.")
        return cls(config, family, lr_weights(config, family))

    @property
    def convolutions(self) -> bool:
        """Whether the residual blocks are trained."""
        return self.config.conv_dim > 0 or any(self.config.conv_block_dims)

    def factor(self, target: Target) -> float:
        """Learning-rate factor of the target's block; 1 outside the UNet."""
        return 1.0 if self.weights is None or target.block is None else _of_block(self.weights, target)

    def rank_and_alpha(self, target: Target) -> tuple[int, float]:
        """Rank (0: not trained) and alpha of a target."""
        config = self.config
        if target.large_kernel:
            dims, alphas = config.conv_block_dims, config.conv_block_alphas
            rank, alpha = config.conv_dim, config.conv_alpha
        else:
            dims, alphas = config.block_dims, config.block_alphas
            rank, alpha = config.network_dim, config.network_alpha
        if target.block is not None:
            rank = _of_block(dims, target) if dims else rank
            alpha = _of_block(alphas, target) if alphas else alpha
        if self.factor(target) == 0:
            rank = 0
        alpha = alpha or float(rank)
        # rsLoRA (https://arxiv.org/abs/2312.03732) scales by alpha/√rank; files say so by their alpha, as LyCORIS' do.
        return rank, alpha * math.sqrt(rank) if config.rs_lora else alpha


def lr_weights(config: NetworkConfig, family: Family) -> tuple[float, ...] | None:
    """Learning-rate factor of every block; None if no list is given.

    Short lists are filled with 1 and long ones cut, as sd-scripts does; a side that isn't given has 1 everywhere.
    Factors up to ``block_lr_zero_threshold`` become 0.

    Raises:
        ConfigError: if a list is neither numbers nor a known preset.
    """
    if not (config.down_lr_weight or config.mid_lr_weight or config.up_lr_weight):
        return None
    row = traits(family)
    weights: list[float] = []
    for name, length in _sides(row):
        given = read_lr_weights(name, getattr(config, name), length)
        if len(given) > length:
            logger.warning("%s has %d numbers; only the first %d are used.", name, len(given), length)
            given = given[:length]
        kept = [weight if weight > config.block_lr_zero_threshold else 0.0 for weight in given]
        weights += kept + [1.0] * (length - len(kept))
    ends = (1.0,) * row.end_blocks
    return (*ends, *weights, *ends)


def _sides(row: Traits) -> tuple[tuple[str, int], ...]:
    return ("down_lr_weight", row.down_blocks), ("mid_lr_weight", row.middle_blocks), ("up_lr_weight", row.down_blocks)


def _of_block(numbers: Sequence[Number], target: Target) -> Number:
    if target.block is None or target.block >= len(numbers):
        raise ConfigError(f"{target.path} is in no block of the usual layout; leave the options per block empty.")
    return numbers[target.block]
