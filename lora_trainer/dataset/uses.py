"""What training makes of one use of an image: its pixels and its caption, as functions of the seed and of which use it
is; and which uses of an image a run makes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from lora_trainer.config import RunConfig
from lora_trainer.dataset.batches import (
    Batch,
    Sample,
    batches_per_epoch,
    plan_epoch,
    steps_per_epoch,
    total_epochs,
    total_steps,
)
from lora_trainer.dataset.captions import render
from lora_trainer.dataset.images import LoadedImage, load_pixels
from lora_trainer.dataset.items import Dataset
from lora_trainer.seeds import python_rng

LOOKED_THROUGH = 1 << 18  # batches in which the uses of one image are looked for: a run may have millions


class Length(NamedTuple):
    """How long a run is."""

    processes: int
    accumulation: int  # batches per optimiser step
    steps: int  # optimiser steps
    epochs: int  # the last one may be cut short

    @classmethod
    def of(cls, dataset: Dataset, config: RunConfig) -> Length:
        """That of a run in one process."""
        accumulation, batches = config.optimizer.gradient_accumulation_steps, batches_per_epoch(dataset)
        steps = total_steps(config.optimizer, batches)
        return cls(1, accumulation, steps, total_epochs(steps, batches, accumulation))


class Use(NamedTuple):
    """One use of an image, and when it is made."""

    sample: Sample
    epoch: int  # 1 in the first pass
    step: int  # optimiser steps done before


def in_order(dataset: Dataset, length: Length, seed: int) -> Iterator[tuple[Batch, int, int]]:
    """Every batch of a run, with its epoch and the optimiser steps done before it."""
    per_epoch = steps_per_epoch(batches_per_epoch(dataset, length.processes), length.accumulation)
    for epoch in range(1, length.epochs + 1):
        for index, batch in enumerate(plan_epoch(dataset, length.processes, seed, epoch)):
            done = (epoch - 1) * per_epoch + index // length.accumulation
            if done >= length.steps:
                return
            yield batch, epoch, done


def uses_of(dataset: Dataset, item: int, length: Length, seed: int) -> Iterator[Use]:
    """The uses of one image (an index in ``Dataset.items``) in the order of the run."""
    for batch, epoch, done in islice(in_order(dataset, length, seed), LOOKED_THROUGH):
        for sample in batch:
            if sample.item == item:
                yield Use(sample, epoch, done)


def use_pixels(dataset: Dataset, item: int, flip: bool, uid: int, seed: int) -> LoadedImage:
    """The pixels of one use; ``item`` is an index in ``Dataset.pictures``.

    Raises:
        DatasetError: as of :func:`lora_trainer.dataset.images.load_pixels`.
    """
    crop, color = python_rng(seed, "crop", uid), python_rng(seed, "color", uid)
    return load_pixels(dataset.pictures[item], flip, crop, color)


def use_text(dataset: Dataset, use: Use, seed: int, steps: int) -> str:
    """The caption of one use; ``steps`` are those of the whole run."""
    item, rng = dataset.pictures[use.sample.item], python_rng(seed, "caption", use.sample.uid)
    return render(item.captions, item.folder.caption, rng, use.epoch, use.step, steps)
