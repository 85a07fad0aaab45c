"""How the UNet's blocks can hold their weights: as the model has them, in 8 bits, or in CPU memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lora_trainer.config import MemoryConfig
from lora_trainer.frozen_weights.bringing import AHEAD
from lora_trainer.frozen_weights.eight_bit import size_in_8_bits
from lora_trainer.frozen_weights.lending import layers


@dataclass(frozen=True)
class BlockWeights:
    """Bytes of the weights of a block's layers."""

    own: int  # as the model has them
    in_8_bits: int
    computed: int  # as they are computed with
    largest: int  # of them, the largest
    cast: bool  # whether they are in another number format than they are computed with


@dataclass(frozen=True)
class Storage:
    """How the weights are held; blocks are numbered as the cost of a step numbers them."""

    in_8_bits: bool = False
    in_cpu: tuple[int, ...] = ()
    saved: int = 0  # bytes that aren't in the accelerator's memory
    staged: int = 0  # bytes for weights that are made or brought for the moment
    last_resort: bool = False  # only with all else done
    copies: tuple[int, ...] = ()  # bytes that each block's weights take beside that while it is recomputed

    def passing(self, recomputed: Sequence[int]) -> int:
        """The most bytes at once that weights take for the moment."""
        return max((self.copies[block] for block in recomputed), default=0) + self.staged if self.copies else 0


def block_weights(blocks: Sequence[nn.Module], dtype: torch.dtype | None) -> list[BlockWeights]:
    """What the blocks' layers weigh, computed with in ``dtype``, or in their own number format."""
    found = []
    for block in blocks:
        weights: list[Any] = [module.weight for module in layers([block])]
        sizes = [weight.numel() * (dtype or weight.dtype).itemsize for weight in weights]
        cast = dtype is not None and any(weight.dtype != dtype for weight in weights)
        own = sum(weight.nbytes for weight in weights)
        in_8_bits = sum(map(size_in_8_bits, weights))
        found.append(BlockWeights(own, in_8_bits, sum(sizes), max(sizes, default=0), cast))
    return found


def storages(
    weights: Sequence[BlockWeights], work: Sequence[int], config: MemoryConfig, unasked: bool
) -> Iterator[Storage]:
    """The ways that the settings allow, the one that costs least first.

    8 bits cost less than bringing weights again and again. Of the blocks those are brought first whose work takes
    longest for the bytes that it needs: it hides the bringing.

    Args:
        weights: of each block.
        work: of each block's forward pass.
        unasked: whether more may be done than is asked for.
    """
    ways = {"auto": (False, True) if unasked else (False,), "always": (True,), "never": (False,)}[config.base_8bit]
    ranked = sorted(range(len(weights)), key=lambda block: work[block] / max(weights[block].own, 1), reverse=True)
    swap = config.blocks_in_cpu_memory
    for in_8_bits in ways:
        yield storage(weights, in_8_bits, ranked[: max(swap, 0)])
    if swap < 0 and unasked:
        for count in range(1, len(ranked) + 1):
            yield storage(weights, ways[-1], ranked[:count], last_resort=True)


def storage(
    weights: Sequence[BlockWeights], in_8_bits: bool, in_cpu: Sequence[int], last_resort: bool = False
) -> Storage:
    """What it means for the memory if all blocks are held in 8 bits, and some in CPU memory."""
    away = set(in_cpu)
    saved = staged = 0
    for block, one in enumerate(weights):
        here = 0 if block in away else one.in_8_bits if in_8_bits else one.own
        saved += one.own - here
        if in_8_bits or one.cast:
            staged = max(staged, one.largest)
    made = [one.computed if in_8_bits or one.cast or block in away else 0 for block, one in enumerate(weights)]
    brought = min(AHEAD, sum(weights[block].computed for block in away))
    return Storage(in_8_bits, tuple(sorted(away)), saved, staged + brought, last_resort, tuple(made))
