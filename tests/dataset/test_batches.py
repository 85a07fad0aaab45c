"""An epoch is exactly one pass, whatever the buckets and batch sizes; steps are counted as kohya counts them."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from lora_trainer.config import DatasetConfig, OptimizerConfig
from lora_trainer.dataset.batches import (
    batches_per_epoch,
    bucket_samples,
    count_batches,
    plan_epoch,
    steps_per_epoch,
    total_epochs,
    total_steps,
)
from lora_trainer.dataset.buckets import Placement
from lora_trainer.dataset.items import Dataset, Folder, ImageItem


def dataset(counts: dict[tuple[int, int], list[int]], flip_aug: bool = False) -> Dataset:
    """A dataset in memory: bucket -> repeats of each of its images."""
    items = [
        ImageItem(
            Path(f"{size[0]}-{n}.png"),
            Folder(Path("1_a"), 1, "a", config=DatasetConfig(flip_aug=flip_aug)),
            repeats,
            ("a",),
            "file",
            size,
            Placement(size, size),
        )
        for size, repeated in counts.items()
        for n, repeats in enumerate(repeated)
    ]
    random.Random(0).shuffle(items)
    return Dataset(Path("d"), tuple(items), (items[0].folder,))


def random_dataset(rng: random.Random, flip_aug: bool = False) -> Dataset:
    buckets = rng.sample([(64 * w, 64 * h) for w in range(1, 9) for h in range(1, 9)], rng.randint(1, 6))
    return dataset({size: [rng.randint(1, 12) for _ in range(rng.randint(1, 9))] for size in buckets}, flip_aug)


@pytest.mark.parametrize("seed", range(60))
def test_an_epoch_is_exactly_one_pass(seed: int) -> None:
    rng = random.Random(seed)
    data, batch_size = random_dataset(rng), rng.randint(1, 17)
    for epoch in (1, 2, rng.randint(3, 99)):
        plan = plan_epoch(data, batch_size, seed, epoch)
        uses = Counter((sample.item, sample.repeat) for batch in plan for sample in batch)
        assert set(uses.values()) == {1}
        assert Counter(item for item, _ in uses) == {n: item.repeats for n, item in enumerate(data.items)}
        assert len(plan) == batches_per_epoch(data, batch_size)
        assert all(1 <= len(batch) <= batch_size for batch in plan)
        assert all(len({data.items[sample.item].bucket for sample in batch}) == 1 for batch in plan)


def test_only_the_last_batch_of_a_bucket_is_smaller() -> None:
    data = dataset({(64, 64): [10], (128, 64): [3, 4], (64, 128): [1]})
    sizes = Counter((data.items[batch[0].item].bucket, len(batch)) for batch in plan_epoch(data, 4, 0, 1))
    assert sizes == {((64, 64), 4): 2, ((64, 64), 2): 1, ((128, 64), 4): 1, ((128, 64), 3): 1, ((64, 128), 1): 1}


def test_order_is_a_function_of_seed_and_epoch() -> None:
    data = dataset({(64, 64): [3] * 10, (128, 64): [2] * 8}, flip_aug=True)
    assert plan_epoch(data, 3, 7, 2) == plan_epoch(data, 3, 7, 2)
    assert plan_epoch(data, 3, 7, 2) != plan_epoch(data, 3, 7, 3)
    assert plan_epoch(data, 3, 7, 2) != plan_epoch(data, 3, 8, 2)


def test_order_is_shuffled_within_and_between_buckets() -> None:
    data = dataset({(64, 64): [1] * 20, (128, 64): [1] * 20})
    buckets = [data.items[batch[0].item].bucket for batch in plan_epoch(data, 2, 0, 1)]
    changes = sum(a != b for a, b in pairwise(buckets))
    assert changes > 3  # not one bucket after the other
    first = [plan_epoch(data, 1, 0, epoch)[0][0].item for epoch in range(1, 200)]
    assert len(set(first)) == 40  # every image comes first at some time


def test_images_meet_others_in_every_epoch() -> None:
    data = dataset({(64, 64): [1] * 20})
    epochs = [{frozenset(sample.item for sample in batch) for batch in plan_epoch(data, 2, 0, e)} for e in range(1, 9)]
    assert max(len(a & b) for a, b in pairwise(epochs)) <= 3  # of ten pairs


def test_the_global_random_generator_is_left_alone() -> None:
    random.seed(5)
    state = random.getstate()
    plan_epoch(dataset({(64, 64): [5, 5]}, flip_aug=True), 2, 0, 1)
    assert random.getstate() == state


def test_sample_ids_are_unique_over_the_run_and_independent_of_the_batches() -> None:
    data = dataset({(64, 64): [3, 4], (128, 64): [2, 5]}, flip_aug=True)
    ids = [sample.uid for epoch in range(1, 6) for batch in plan_epoch(data, 3, 0, epoch) for sample in batch]
    assert sorted(ids) == list(range(5 * 14))

    def uses(batch_size: int) -> set[tuple[int, ...]]:
        return {tuple(sample) for batch in plan_epoch(data, batch_size, 0, 4) for sample in batch}

    assert uses(1) == uses(2) == uses(5)  # also which of them are mirrored


def test_half_of_the_uses_are_mirrored_if_asked() -> None:
    counts = {(64, 64): [10] * 100}
    assert not any(sample.flip for batch in plan_epoch(dataset(counts), 4, 0, 1) for sample in batch)
    mirrored = [sample.flip for batch in plan_epoch(dataset(counts, flip_aug=True), 4, 0, 1) for sample in batch]
    assert sum(mirrored) / len(mirrored) == pytest.approx(0.5, abs=0.06)
    again = {sample.uid % 1000: sample.flip for batch in plan_epoch(dataset(counts, True), 4, 0, 2) for sample in batch}
    assert [again[n] for n in range(1000)] != [
        flip
        for _, flip in sorted((s.uid, s.flip) for batch in plan_epoch(dataset(counts, True), 4, 0, 1) for s in batch)
    ]


def test_batches_per_epoch_is_the_sum_over_buckets() -> None:
    data = dataset({(64, 64): [10], (128, 64): [3, 4], (64, 128): [1]})
    assert bucket_samples(data) == {(64, 64): 10, (64, 128): 1, (128, 64): 7}
    assert batches_per_epoch(data, 4) == 3 + 2 + 1
    assert batches_per_epoch(data, 1) == 18
    assert count_batches([], 4) == 0


@pytest.mark.parametrize(
    ("batches", "accumulation", "steps"),
    [
        (100, 1, 100),
        (100, 3, 34),  # 33 whole groups and a rest of one batch, which is a step too
        (101, 4, 26),
        (1, 8, 1),
    ],
)
def test_steps_per_epoch(batches: int, accumulation: int, steps: int) -> None:
    assert steps_per_epoch(batches, accumulation) == steps


def test_total_steps_of_worked_examples() -> None:
    # 20 images x 10 repeats in one bucket, batch 2, 10 epochs: kohya trains 10 * ceil(200 / 2) = 1000 steps
    batches = count_batches([200], 2)
    assert total_steps(OptimizerConfig(max_train_epochs=10), batches) == 1000
    # the same in three buckets of 97, 63 and 40: ceil(48.5) + ceil(31.5) + 20 = 101 batches an epoch
    batches = count_batches([97, 63, 40], 2)
    assert total_steps(OptimizerConfig(max_train_epochs=10), batches) == 1010
    assert total_steps(OptimizerConfig(max_train_epochs=10, gradient_accumulation_steps=4), batches) == 260
    # two processes: batches of 4 over both, and each bucket's last one is shared too: 25 + 16 + 10
    assert total_steps(OptimizerConfig(max_train_epochs=10), count_batches([97, 63, 40], 2 * 2)) == 510
    assert total_steps(OptimizerConfig(max_train_steps=1600, max_train_epochs=10), batches) == 1600


def test_total_epochs() -> None:
    assert total_epochs(1600, 101) == 16  # 15 whole epochs are 1515 steps
    assert total_epochs(1010, 101) == 10
    assert total_epochs(1011, 101) == 11
    assert total_epochs(100, 101, accumulation=4) == 4  # 26 steps an epoch


@pytest.mark.parametrize("seed", range(20))
def test_counted_steps_are_the_groups_of_the_plan(seed: int) -> None:
    rng = random.Random(seed)
    data, batch_size, accumulation, epochs = (
        random_dataset(rng),
        rng.randint(1, 6),
        rng.randint(1, 5),
        rng.randint(1, 4),
    )
    steps = 0
    for epoch in range(1, epochs + 1):
        plan = plan_epoch(data, batch_size, 0, epoch)
        steps += len(range(0, len(plan), accumulation))
    config = OptimizerConfig(max_train_epochs=epochs, gradient_accumulation_steps=accumulation)
    assert total_steps(config, batches_per_epoch(data, batch_size)) == steps
    assert total_epochs(steps, batches_per_epoch(data, batch_size), accumulation) == epochs
