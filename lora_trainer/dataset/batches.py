"""The order of an epoch, and how many steps a run has.

An epoch is exactly one pass: every image exactly ``repeats`` times. Batches never mix buckets; the last batch of a
bucket is smaller instead of being filled up or dropped. The order is a function of (seed, epoch) only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from math import ceil
from typing import NamedTuple

from lora_trainer.config import OptimizerConfig
from lora_trainer.dataset.buckets import Size
from lora_trainer.dataset.items import Dataset
from lora_trainer.seeds import python_rng


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


def plan_epoch(dataset: Dataset, batch_size: int, seed: int, epoch: int) -> list[Batch]:
    """The batches of one epoch.

    Args:
        batch_size: images per batch over all processes; a process takes its share out of each batch.
        epoch: 1 for the first.
    """
    buckets: dict[Size, Batch] = {size: [] for size in bucket_samples(dataset)}
    uid = (epoch - 1) * (dataset.train_samples + dataset.reg_samples)
    flips = python_rng(seed, "flip", epoch) if dataset.config.flip_aug else None
    for index, item in enumerate(dataset.items):
        for repeat in range(item.repeats):
            flip = flips is not None and flips.random() < 0.5
            buckets[item.bucket].append(Sample(index, repeat, uid, flip))
            uid += 1
    batches: list[Batch] = []
    rng = python_rng(seed, "order", epoch)
    for samples in buckets.values():
        rng.shuffle(samples)
        batches += [samples[i : i + batch_size] for i in range(0, len(samples), batch_size)]
    rng.shuffle(batches)
    return batches


def batches_per_epoch(dataset: Dataset, batch_size: int) -> int:
    """How many batches :func:`plan_epoch` gives."""
    return count_batches(bucket_samples(dataset).values(), batch_size)


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
