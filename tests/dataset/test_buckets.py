"""Bucket, crop and size arithmetic: kohya's worked examples, and properties that hold for any size."""

from __future__ import annotations

import random

import pytest

from lora_trainer.config import DatasetConfig
from lora_trainer.dataset.buckets import (
    aspect_error,
    bucket_resolutions,
    crop_box,
    place,
    size_conditioning,
)
from lora_trainer.errors import DatasetError

UPSCALE = DatasetConfig(bucket_no_upscale=False, max_bucket_reso=1024)


@pytest.mark.parametrize(
    ("resolution", "largest", "steps", "count"),
    [((512, 512), 1024, 64, 17), ((1024, 1024), 2048, 64, 41), ((1024, 1024), 2048, 32, 81)],
)
def test_number_of_buckets(resolution: tuple[int, int], largest: int, steps: int, count: int) -> None:
    assert len(bucket_resolutions(resolution, 256, largest, steps)) == count


def test_range_of_buckets_at_512() -> None:
    buckets = bucket_resolutions((512, 512), 256, 1024, 64)
    assert buckets[0] == (256, 832)
    assert buckets[-1] == (1024, 256)
    assert (512, 512) in buckets


def test_limits_that_are_no_multiples_are_widened() -> None:
    assert bucket_resolutions((512, 512), 300, 1000, 64) == bucket_resolutions((512, 512), 256, 1024, 64)


@pytest.mark.parametrize(
    ("size", "bucket", "resized"),
    [
        ((600, 400), (640, 384), (640, 427)),  # nearest aspect ratio, upscaled to cover
        ((640, 384), (640, 384), (640, 384)),  # exact size wins
        ((1000, 1000), (512, 512), (512, 512)),
        ((100, 100), (512, 512), (512, 512)),  # upscaled
    ],
)
def test_upscaling_allowed(size: tuple[int, int], bucket: tuple[int, int], resized: tuple[int, int]) -> None:
    placement = place(size, UPSCALE)
    assert placement.bucket == bucket
    assert placement.resized == resized


def test_aspect_error_of_the_worked_example() -> None:
    assert aspect_error((600, 400), (640, 384)) == pytest.approx(0.1667, abs=1e-4)


@pytest.mark.parametrize(
    ("size", "bucket"),
    [((600, 400), (576, 384)), ((300, 200), (256, 192)), ((2000, 500), (1024, 256)), ((512, 512), (512, 512))],
)
def test_no_upscale(size: tuple[int, int], bucket: tuple[int, int]) -> None:
    assert place(size, DatasetConfig()).bucket == bucket


@pytest.mark.parametrize(("size", "resized"), [((800, 600), (512, 384)), ((600, 800), (384, 512))])
def test_no_upscale_rounds_the_side_that_keeps_the_aspect_ratio(
    size: tuple[int, int], resized: tuple[int, int]
) -> None:
    # 800x600 at the area of 512x512 is 591x443: from the width 576x384 (aspect 1.5), from the height 512x384 (exact)
    assert place(size, DatasetConfig()).resized == resized


def test_no_two_buckets_share_an_aspect_ratio() -> None:
    for resolution, steps in (((512, 512), 64), ((1024, 1024), 32), ((768, 512), 8), ((1024, 576), 64)):
        buckets = bucket_resolutions(resolution, 256, 2048, steps)
        assert len({width / height for width, height in buckets}) == len(buckets)
        assert all(place(bucket, DatasetConfig(resolution=resolution, bucket_reso_steps=steps, bucket_no_upscale=False))
                   .bucket == bucket for bucket in buckets)  # fmt: skip


def test_no_upscale_keeps_small_images_at_their_size() -> None:
    assert place((300, 200), DatasetConfig()).resized == (300, 200)


def test_without_buckets_everything_becomes_the_resolution() -> None:
    config = DatasetConfig(enable_bucket=False, resolution=(512, 384))
    for size in ((100, 900), (3000, 2000), (512, 384)):
        placement = place(size, config)
        assert placement.bucket == (512, 384)
        assert placement.resized[0] >= 512
        assert placement.resized[1] >= 384
    assert place((1024, 768), config).resized == (512, 384)


def test_random_crop_without_buckets_keeps_the_scale_of_large_images() -> None:
    config = DatasetConfig(enable_bucket=False, random_crop=True)
    assert place((2000, 1000), config).resized == (2000, 1000)
    assert place((400, 1000), config).resized == (512, 1280)  # too narrow to cut 512 px out of: resized to cover


@pytest.mark.parametrize(
    "config",
    [
        DatasetConfig(),
        UPSCALE,
        DatasetConfig(enable_bucket=False),
        DatasetConfig(bucket_reso_steps=8, resolution=(768, 512)),
    ],
)
def test_any_size_is_covered_and_keeps_its_shape(config: DatasetConfig) -> None:
    rng = random.Random(1)
    for _ in range(2000):
        size = (rng.randint(64, 4000), rng.randint(64, 4000))
        try:
            resized, bucket = place(size, config)
        except DatasetError:
            assert config.bucket_no_upscale, size
            assert max(size) / min(size) > 16, size  # only strips are refused
            continue
        assert resized[0] >= bucket[0]
        assert resized[1] >= bucket[1]
        assert bucket[0] % 8 == 0 and bucket[1] % 8 == 0
        if config.enable_bucket:
            assert bucket[0] * bucket[1] <= config.resolution[0] * config.resolution[1] * 1.15
        if config.enable_bucket and config.bucket_no_upscale:
            assert resized[0] <= size[0] and resized[1] <= size[1]
            assert resized[0] - bucket[0] < config.bucket_reso_steps
            assert resized[1] - bucket[1] < config.bucket_reso_steps
        scales = (resized[0] / size[0], resized[1] / size[1])
        assert abs(scales[0] - scales[1]) * max(size) <= 0.51 * max(size) / min(size) + 1e-6, size  # rounding only


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (7, 64)])
@pytest.mark.parametrize("config", [DatasetConfig(), UPSCALE, DatasetConfig(enable_bucket=False)])
def test_tiny_images_are_refused_in_every_mode(size: tuple[int, int], config: DatasetConfig) -> None:
    with pytest.raises(DatasetError, match=f"{size[0]}x{size[1]} px"):
        place(size, config)


def test_images_below_one_step_are_refused_with_the_remedy() -> None:
    with pytest.raises(DatasetError, match=r"needs 64 px.*bucket_no_upscale"):
        place((63, 300), DatasetConfig())
    with pytest.raises(DatasetError, match="at the training resolution"):
        place((20000, 200), DatasetConfig())


def test_limits_are_ignored_without_upscaling_as_kohya_does() -> None:
    config = DatasetConfig(resolution=(128, 128))
    assert place((500, 500), config).bucket == (128, 128)


def test_crop_is_centred_or_anywhere_inside() -> None:
    assert crop_box((640, 427), (640, 384)) == (0, 21, 640, 405)
    rng = random.Random(0)
    boxes = {crop_box((70, 66), (64, 64), rng) for _ in range(500)}
    assert {box[0] for box in boxes} == set(range(7))
    assert {box[1] for box in boxes} == {0, 1, 2}
    assert all(box[2] - box[0] == 64 and box[3] - box[1] == 64 for box in boxes)


def test_size_conditioning_follows_the_aspect_ratios_only() -> None:
    # bucket wider than the image: its whole height is used, the margin is at the sides: (640 - 384*1.5) // 2 = 32
    wide = size_conditioning((600, 400), (640, 384))
    assert (wide.original, wide.crop, wide.target) == ((400, 600), (0, 32), (384, 640))
    # bucket narrower than the image: (512 - 512/1.5) // 2 = 85
    assert size_conditioning((600, 400), (512, 512)).crop == (85, 0)
    assert size_conditioning((512, 512), (512, 512)).crop == (0, 0)
    # mirrored: what is left of the image is what was right of it: 512 - (75 + 360.9…) = 76 where the floor took 75
    plain, mirrored = size_conditioning((361, 512), (512, 512)), size_conditioning((361, 512), (512, 512), flip=True)
    assert (plain.crop, mirrored.crop) == ((0, 75), (0, 76))
