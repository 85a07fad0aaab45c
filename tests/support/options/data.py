"""The images: how many, at which size, how they are varied, and how much each of them counts."""

from __future__ import annotations

import pytest
import torch
from support.options.loss import clean, distance, levels, squared
from support.options.run import INPUT, LOSS, SHAPE, Case, Check, Outcome
from torch import Tensor

REG = {"reg_data_dir": "{world}/reg"}
LIVE = {"cache_latents": False}
FLIPPING = {"seed": 9}  # mirrors one image of the first batch
UPSCALED = {"resolution": 128, "bucket_no_upscale": False, "min_bucket_reso": 64}
EPOCH = {"batches", "steps", "rates", "timesteps", "texts", "encoding", "context"} | INPUT


def sizes_are(width: int, height: int) -> Check:
    """Every image is trained at this size in pixels."""

    def check(base: Outcome, changed: Outcome) -> None:
        assert {tuple(call.noisy.shape[2:]) for call in changed.model.calls} == {(height // 8, width // 8)}

    return check


def latents_in(run: Outcome, noise: Tensor) -> Tensor:
    """The clean latents of the first step, given its noise."""
    call = run.model.calls[0]
    pairs = [levels(run, t) for t in call.timesteps]
    return torch.stack([(x - b * e) / a for x, e, (a, b) in zip(call.noisy.double(), noise, pairs, strict=True)])


def regularised(base: Outcome, changed: Outcome) -> None:
    """Both regularisation images are used once an epoch, with their folder's captions, beside all others."""
    assert changed.metadata()["ss_num_reg_images"] == "2" and base.metadata()["ss_num_reg_images"] == "0"
    others = ["a thing, 0", "a thing, 1"] * 2
    assert sorted(changed.model.captions_encoded) == sorted([*base.model.captions_encoded, *others])


def weighted_prior(base: Outcome, changed: Outcome) -> None:
    """In the first batch regularisation images count a quarter, and the others as before."""
    weights = [0.25 if text.startswith("a thing") else 1.0 for text in changed.model.captions_encoded[:2]]
    parts = [weight * part for weight, part in zip(weights, distance(changed, squared, **REG), strict=True)]
    assert changed.log[0]["loss"] == pytest.approx(sum(parts) / 2, rel=2e-4) and min(weights) == 0.25


def one_image_a_batch(base: Outcome, changed: Outcome) -> None:
    assert [len(call.timesteps) for call in changed.model.calls] == [1] * 4 and len(changed.log) == 4


def nothing_held_out(base: Outcome, changed: Outcome) -> None:
    assert "None of the 2 images is held out" in changed.facts()["notices"][-1] and "held" not in str(
        base.facts()["notices"]
    )


def each_image_at_both_sizes(base: Outcome, changed: Outcome) -> None:
    """An epoch has each image once at each size, and as many steps more."""
    uses = [tuple(row.shape[-2:]) for call in changed.model.calls for row in call.noisy]
    assert sorted(uses) == [(6, 8)] * 4 + [(12, 16)] * 4, "two images, two epochs"
    assert len(changed.log) == 2 * len(base.log) and changed.metadata()["ss_num_train_images"] == "4"
    assert changed.facts()["images"] == base.facts()["images"] == 2, "they are the same images"


def mirrored(base: Outcome, changed: Outcome) -> None:
    """Every image is encoded both ways, and what is used is one of the two."""
    assert len(changed.model.batches_encoded) == 2 * len(base.model.batches_encoded)
    plain, noise = clean(base, **FLIPPING)
    for used, own in zip(latents_in(changed, noise), plain, strict=True):
        distances = [float((used - other).abs().mean()) for other in (own, own.flip(-1))]
        assert min(distances) < 0.1 < max(distances)  # apart from the encoder's own deviation, which isn't mirrored
    assert not torch.allclose(latents_in(changed, noise), plain, atol=0.1)


def loss_where_opaque(base: Outcome, changed: Outcome) -> None:
    """The right half of every image is transparent, and black in its mask: the left half's loss, spread over all."""
    left = (torch.arange(8) < 4).double()
    expected = sum(distance(changed, lambda p, t: squared(p, t) * left)) / 2
    assert changed.log[0]["loss"] == pytest.approx(expected, rel=2e-4)


def slightly_other_pixels(base: Outcome, changed: Outcome) -> None:
    """The same picture: of 128x96 px, every second row and column."""
    difference = (changed.model.calls[0].noisy - base.model.calls[0].noisy).abs()
    assert 0 < float(difference.mean()) < 0.1


def slightly_other_colors(base: Outcome, changed: Outcome) -> None:
    difference = (changed.model.calls[0].noisy - base.model.calls[0].noisy).abs()
    assert 0 < float(difference.max()) < 0.5


CASES: dict[str, Case] = {
    "reg_data_dir": Case("{world}/reg", EPOCH, check=regularised),
    "resolution": Case(128, SHAPE, check=sizes_are(128, 96)),
    "extra_resolutions": Case("64", EPOCH - {"context"} | {"memory"}, {"resolution": 128}, each_image_at_both_sizes),
    "train_batch_size": Case(1, EPOCH - {"encoding"} | {"memory"}, check=one_image_a_batch),
    "enable_bucket": Case(False, SHAPE, check=sizes_are(64, 64)),
    "min_bucket_reso": Case(128, SHAPE, UPSCALED, sizes_are(128, 128), idle=[{}]),
    "max_bucket_reso": Case(128, SHAPE, UPSCALED, sizes_are(128, 96), idle=[{}]),
    "bucket_reso_steps": Case(32, SHAPE, check=sizes_are(32, 32)),
    "bucket_no_upscale": Case(False, SHAPE, {"resolution": 128, "min_bucket_reso": 64}, sizes_are(144, 112)),
    "flip_aug": Case(True, {"encoding"} | INPUT, FLIPPING, mirrored),
    "color_aug": Case(True, INPUT, LIVE, slightly_other_colors),
    "random_crop": Case(True, INPUT, {"enable_bucket": False, **LIVE}, sizes_are(64, 64)),
    "alpha_mask": Case(True, LOSS, check=loss_where_opaque),
    "resize_interpolation": Case("nearest", INPUT, FLIPPING, slightly_other_pixels),
    "masked_loss": Case(True, LOSS, check=loss_where_opaque),
    "prior_loss_weight": Case(0.25, LOSS, REG, weighted_prior, idle=[{}]),
    # Two images are too few: what they do with more is in tests/training/test_held_out.py.
    "validation_split": Case(0.5, set(), check=nothing_held_out),
    "validation_seed": Case(3, set(), {"validation_split": 0.5}),
}
