"""What a training step keeps in memory, counted in one forward pass that keeps nothing.

Autograd hands over every tensor that it wants to keep for the backward pass (``saved_tensors_hooks``); here its size is
noted and the tensor dropped. So the count costs no more memory than a picture does, and is that of the very operations
of the model at hand: its precision, its attention, the LoRA's hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import FlopCounterMode

from lora_trainer.training.checkpointing import around_blocks


@dataclass(frozen=True)
class Kept:
    """Memory that something of a step's backward pass needs."""

    size: int  # bytes
    inside: frozenset[int]  # blocks that need it, unless they are recomputed
    entering: frozenset[int]  # blocks that it enters: they need it if they are recomputed
    outside: int | None  # if anything else needs it: how many blocks had begun before that

    def first_user(self, recomputed: frozenset[int]) -> int | None:
        """The place in the forward pass of the first that needs it, whose backward pass is the last; None if nobody."""
        users = (self.inside - recomputed) | (self.entering & recomputed)
        first = min(users, default=None)
        if self.outside is None:
            return first
        return self.outside if first is None else min(self.outside, first)


@dataclass(frozen=True)
class StepCost:
    """What a step takes above the weights, the LoRA and the optimiser; blocks are numbered in the order of their work.

    ``blocks`` has, for each of them, its number in the list that was given.
    """

    images: int
    kept: tuple[Kept, ...]
    blocks: tuple[int, ...]
    work: tuple[int, ...]  # floating-point operations of each block's forward pass
    all_work: int  # of the whole forward pass
    passing: int  # bytes: the most that is in use at once and that nobody keeps

    def held(self, recomputed: Collection[int]) -> int:
        """Bytes at the end of the forward pass."""
        return self._until(frozenset(recomputed))[-1]

    def inside(self, block: int) -> int:
        """Bytes that a block keeps."""
        return sum(one.size for one in self.kept if block in one.inside)

    def peak(self, recomputed: Collection[int]) -> int:
        """The most bytes at once: at the end of the forward pass, or when a recomputed block has its inside back."""
        until = self._until(frozenset(recomputed))
        again = [until[block] + self._insides[block] for block in recomputed]
        return max(until[-1], *again, 0) + self.passing

    @cached_property
    def _insides(self) -> list[int]:
        return [self.inside(block) for block in range(len(self.blocks))]

    def _until(self, recomputed: frozenset[int]) -> list[int]:
        """Bytes that are still held while each block's backward pass runs, and before all of them."""
        held = [0] * (len(self.blocks) + 1)
        for one in self.kept:
            first = one.first_user(recomputed)
            if first is not None:
                held[first] += one.size
        return list(accumulate(held))


def count_step(
    compute: Callable[[], Tensor],
    blocks: Sequence[nn.Module],
    weights: Iterable[Tensor],
    images: int,
    made_again: Callable[[Tensor], bool] = lambda tensor: False,
) -> StepCost:
    """Count a step's forward pass; nothing of it is kept.

    Args:
        compute: the forward pass up to the losses.
        blocks: that could be recomputed.
        weights: whatever is in memory anyway.
        images: in the batch.
        made_again: whether a tensor is a weight that isn't kept for the backward pass, but made again for it.
    """
    count, flops = _Count(blocks, weights, made_again), FlopCounterMode(display=False)
    with flops, count.counting(lambda: int(flops.get_total_flops())):
        compute()
    return count.cost(images, int(flops.get_total_flops()))


class Live(TorchDispatchMode):
    """Storages that are made while it lasts, and which of them are in use at the same time."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}  # bytes of each storage
        self._moments: list[frozenset[int]] = []  # what was in use after each operation
        self._made: dict[int, StorageWeakRef] = {}
        self._known: dict[int, StorageWeakRef] = {}  # a weak reference keeps an identity from being used again

    def peak(self, without: Collection[int] = ()) -> int:
        """The most bytes in use at once, some storages left out."""
        left_out = frozenset(without)
        return max((self._bytes(moment - left_out) for moment in self._moments), default=0)

    def now(self) -> int:
        """Bytes in use."""
        return self._bytes(self._in_use())

    def _bytes(self, storages: Iterable[int]) -> int:
        return sum(self.sizes[storage] for storage in storages)

    def _in_use(self) -> frozenset[int]:
        for storage in [storage for storage, reference in self._made.items() if reference.expired()]:
            del self._made[storage]
        return frozenset(self._made)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for given in _tensors((args, kwargs)):
            reference = _reference(given)
            self._known.setdefault(reference.cdata, reference)
        result = function(*args, **(kwargs or {}))
        for made in _tensors(result):
            reference = _reference(made)
            if reference.cdata not in self._known:
                self._known[reference.cdata] = self._made[reference.cdata] = reference
                self.sizes[reference.cdata] = int(made.untyped_storage().nbytes())
        self._moments.append(self._in_use())
        return result


class _Count:
    """Notes which storages are kept, and for whom."""

    def __init__(
        self, blocks: Sequence[nn.Module], weights: Iterable[Tensor], made_again: Callable[[Tensor], bool]
    ) -> None:
        self._made_again = made_again
        self._blocks = blocks
        self._numbers = {id(block): number for number, block in enumerate(blocks)}
        self._weights = {reference.cdata: reference for reference in map(_reference, weights)}
        self._references: dict[int, StorageWeakRef] = {}
        self._sizes: dict[int, int] = {}
        self._inside: dict[int, set[int]] = {}
        self._entering: dict[int, set[int]] = {}
        self._outside: dict[int, int] = {}
        self._begun: dict[int, int] = {}  # place of each block by its number
        self._work: dict[int, int] = {}
        self._at: int | None = None
        self._live = Live()
        self._flops: Callable[[], int] = lambda: 0

    @contextmanager
    def counting(self, flops: Callable[[], int]) -> Iterator[None]:
        """While it lasts, every tensor that is to be kept is noted and dropped."""
        self._flops = flops
        with (
            around_blocks(self._blocks, self._in_block),
            torch.autograd.graph.saved_tensors_hooks(self._save, _gone),
            self._live,
        ):
            yield

    def cost(self, images: int, work: int) -> StepCost:
        """What was found."""
        kept = [
            Kept(
                size, frozenset(self._inside.get(storage, ())), frozenset(self._entering.get(storage, ())),
                self._outside.get(storage),
            )
            for storage, size in self._sizes.items()
        ]  # fmt: skip
        needed = {*self._inside, *self._outside}
        works = tuple(self._work[place] for place in range(len(self._begun)))
        return StepCost(images, tuple(kept), tuple(self._begun), works, work, self._live.peak(without=needed))

    def _save(self, tensor: Tensor) -> None:
        storage = self._sized(tensor)
        if storage is None:
            return
        if self._at is None:
            self._outside.setdefault(storage, len(self._begun))
        else:
            self._inside.setdefault(storage, set()).add(self._at)

    def _sized(self, tensor: Tensor) -> int | None:
        """A tensor's storage, if it is no weight's."""
        reference = _reference(tensor)
        if reference.cdata in self._weights or self._made_again(tensor):
            return None
        self._references.setdefault(reference.cdata, reference)
        self._sizes[reference.cdata] = int(tensor.untyped_storage().nbytes())
        return reference.cdata

    def _in_block(self, block: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        place = self._begun.setdefault(self._numbers[id(block)], len(self._begun))
        for tensor in _tensors((args, kwargs)):
            if (storage := self._sized(tensor)) is not None:
                self._entering.setdefault(storage, set()).add(place)
        outer, before, self._at = self._at, self._flops(), place
        try:
            return forward(*args, **kwargs)
        finally:
            self._at = outer
            self._work[place] = self._work.get(place, 0) + self._flops() - before


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(values)[0] if isinstance(leaf, Tensor)]


def _reference(tensor: Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())


def _gone(nothing: None) -> Tensor:
    raise RuntimeError("What was only counted has no backward pass.")
