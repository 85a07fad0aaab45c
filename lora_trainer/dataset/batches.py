"""The order of an epoch, and how many steps a run has.

An epoch is exactly one pass: every image exactly ``repeats`` times. Batches never mix buckets; the last batch of a
bucket is smaller instead of being filled up or dropped. The order is a function of (seed, epoch) only.
"""

from __future__ import annotations

import random
from array import array
from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate
from math import ceil
from typing import NamedTuple, overload

from lora_trainer.config import OptimizerConfig
from lora_trainer.dataset.buckets import Size
from lora_trainer.dataset.items import Dataset
from lora_trainer.seeds import derive, python_rng

LISTED = 1 << 20  # uses of an epoch up to which its order is a shuffled list


class Sample(NamedTuple):
    """One use of an image."""

    item: int  # index in Dataset.items
    repeat: int  # 0 … repeats-1
    uid: int  # unique over the whole run and independent of order and batch size: keys noise, timestep and caption
    flip: bool


Batch = list[Sample]


def bucket_samples(dataset: Dataset) -> dict[Size, int]:
    """Uses per epoch of each bucket, by size."""
    counts: Counter[Size] = Counter()
    for item in dataset.items:
        counts[item.bucket] += item.repeats
    return dict(sorted(counts.items()))


def _groups(dataset: Dataset) -> dict[tuple[int, Size], list[int]]:
    """Indices of the images that may share a batch, by the number of their dataset and their bucket."""
    groups: dict[tuple[int, Size], list[int]] = {}
    for index, item in enumerate(dataset.items):
        groups.setdefault((item.folder.number, item.bucket), []).append(index)
    return dict(sorted(groups.items()))


def plan_epoch(dataset: Dataset, processes: int, seed: int, epoch: int) -> EpochPlan:
    """The batches of one epoch.

    Args:
        processes: each takes its share of ``train_batch_size`` images out of every batch.
        epoch: 1 for the first.
    """
    return EpochPlan(dataset, processes, seed, epoch)


class EpochPlan(Sequence[Batch]):
    """The batches of an epoch in their order, each put together when it is asked for.

    Kept is one number a use, and beyond ``LISTED`` uses nothing but the key of a computed shuffle: a folder named after
    a date asks for millions of uses.
    """

    def __init__(self, dataset: Dataset, processes: int, seed: int, epoch: int) -> None:
        self._key = (seed, epoch)
        self._listed = dataset.train_samples + dataset.reg_samples <= LISTED
        repeats = [item.repeats for item in dataset.items]
        self._first_use = [0, *accumulate(repeats)]  # of each item in this epoch, counted over all items
        self._uid = (epoch - 1) * self._first_use[-1]
        self._buckets = list(_groups(dataset).values())
        self._sizes = [_batch_size(dataset, bucket, processes) for bucket in self._buckets]
        self._starts = [[0, *accumulate(repeats[index] for index in bucket)] for bucket in self._buckets]
        self._first_batch = [0, *accumulate(map(_batches, self._starts, self._sizes))]
        rng = python_rng(seed, "order", epoch)
        self._orders = [self._shuffled(starts[-1], rng, n) for n, starts in enumerate(self._starts)]
        self._batches = self._shuffled(self._first_batch[-1], rng, "batches")
        self._flips: bytearray | None = None
        self._mirrored = [item.folder.config.flip_aug for item in dataset.items]
        if any(self._mirrored) and self._listed:
            coin = python_rng(seed, "flip", epoch)
            self._flips = bytearray(coin.random() < 0.5 for _ in range(self._first_use[-1]))

    def _shuffled(self, count: int, rng: random.Random, what: int | str) -> Sequence[int]:
        if not self._listed:
            return ComputedShuffle(count, derive(*self._key, "order", what))
        order = array("L", range(count))
        rng.shuffle(order)
        return order

    def __len__(self) -> int:
        return self._first_batch[-1]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EpochPlan) and list(self) == list(other)

    @overload
    def __getitem__(self, index: int) -> Batch: ...
    @overload
    def __getitem__(self, index: slice) -> list[Batch]: ...
    def __getitem__(self, index: int | slice) -> Batch | list[Batch]:
        if isinstance(index, slice):
            return [self[n] for n in range(*index.indices(len(self)))]
        number = self._batches[range(len(self))[index]]
        bucket = bisect(self._first_batch, number) - 1
        first = (number - self._first_batch[bucket]) * self._sizes[bucket]
        last = min(first + self._sizes[bucket], self._starts[bucket][-1])
        return [self._sample(bucket, self._orders[bucket][n]) for n in range(first, last)]

    def _sample(self, bucket: int, use: int) -> Sample:
        starts = self._starts[bucket]
        place = bisect(starts, use) - 1
        item, repeat = self._buckets[bucket][place], use - starts[place]
        use = self._first_use[item] + repeat
        return Sample(item, repeat, self._uid + use, self._mirrored[item] and self._flip(use))

    def _flip(self, use: int) -> bool:
        if self._flips is not None:
            return bool(self._flips[use])
        return python_rng(self._key[0], "flip", self._key[1], use).random() < 0.5


class ComputedShuffle(Sequence[int]):
    """0 … count-1 in an order that is computed and not kept.

    A Feistel network permutes the next power of four; numbers from ``count`` on are sent through it again until they
    fall below (Black and Rogaway 2002, "Ciphers with arbitrary finite domains").
    """

    ROUNDS = 4

    def __init__(self, count: int, key: int) -> None:
        self._count, self._key = count, key
        self._bits = max(1, ((count - 1).bit_length() + 1) // 2)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...
    def __getitem__(self, index: int | slice) -> int | list[int]:
        if isinstance(index, slice):
            return [self[n] for n in range(*index.indices(self._count))]
        value = self._permuted(range(self._count)[index])
        while value >= self._count:
            value = self._permuted(value)
        return value

    def _permuted(self, value: int) -> int:
        mask = (1 << self._bits) - 1
        left, right = value >> self._bits, value & mask
        for turn in range(self.ROUNDS):
            left, right = right, left ^ (derive(self._key, turn, right) & mask)
        return left << self._bits | right


def batches_per_epoch(dataset: Dataset, processes: int = 1) -> int:
    """How many batches :func:`plan_epoch` gives."""
    return sum(
        count_batches([sum(dataset.items[index].repeats for index in bucket)], _batch_size(dataset, bucket, processes))
        for bucket in _groups(dataset).values()
    )


def _batches(starts: Sequence[int], batch_size: int) -> int:
    """Batches of a bucket whose uses end where the last of these numbers says."""
    return ceil(starts[-1] / batch_size)


def _batch_size(dataset: Dataset, bucket: Sequence[int], processes: int) -> int:
    """Images per batch of a bucket, over all processes."""
    return dataset.items[bucket[0]].folder.config.train_batch_size * processes


def count_batches(samples: Iterable[int], batch_size: int) -> int:
    """Batches of buckets with these numbers of uses: each bucket's last batch may be smaller."""
    return sum(ceil(n / batch_size) for n in samples)


def steps_per_epoch(batches: int, accumulation: int = 1) -> int:
    """Optimiser steps of one epoch; what is left of a group of accumulated batches at its end is a step too.

    Args:
        batches: of one epoch, each with the images of all processes, as those of :func:`plan_epoch`.
    """
    return ceil(batches / accumulation)


def total_steps(config: OptimizerConfig, batches: int) -> int:
    """Optimiser steps of the run: ``max_train_steps``, or ``max_train_epochs`` whole epochs if that is 0."""
    if config.max_train_steps:
        return config.max_train_steps
    return config.max_train_epochs * steps_per_epoch(batches, config.gradient_accumulation_steps)


def total_epochs(steps: int, batches: int, accumulation: int = 1) -> int:
    """Epochs that this many steps begin; the last one may be cut short."""
    return ceil(steps / steps_per_epoch(batches, accumulation))
