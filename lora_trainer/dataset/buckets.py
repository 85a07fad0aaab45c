"""Which size an image is trained at: kohya's bucket rule, resize, crop and SDXL size conditioning, as pure functions.

Sizes are (width, height) in pixels unless a name says otherwise.
"""

from __future__ import annotations

import math
import random
from functools import lru_cache
from typing import NamedTuple

from lora_trainer.config import DatasetConfig
from lora_trainer.errors import DatasetError
from lora_trainer.hosts.base import SizeConditioning

LATENT = 8  # pixels per latent pixel, for every family that we train

Size = tuple[int, int]


class Placement(NamedTuple):
    """How an image gets to its bucket: resize to ``resized``, then crop ``bucket`` out of it."""

    resized: Size
    bucket: Size


@lru_cache(maxsize=64)
def bucket_resolutions(resolution: Size, smallest: int, largest: int, steps: int) -> tuple[Size, ...]:
    """Every bucket that images may be scaled up or down to, sorted.

    For each side length, the longest other side (a multiple of ``steps``) whose area stays within the resolution's,
    both ways round, and the largest square. Limits that aren't multiples of ``steps`` are widened to the next one.
    """
    area = resolution[0] * resolution[1]
    smallest -= smallest % steps
    largest += -largest % steps
    square = int(math.sqrt(area)) // steps * steps
    found = {(square, square)} if square else set()
    for side in range(max(smallest, steps), largest + 1, steps):
        other = min(largest, area // side // steps * steps)
        if other >= max(smallest, steps):
            found |= {(side, other), (other, side)}
    return tuple(sorted(found))


def place(size: Size, config: DatasetConfig) -> Placement:
    """The bucket of an image and the size it is resized to before the crop; ``size`` is after EXIF rotation.

    Raises:
        DatasetError: the image is too small or too narrow for any bucket; the text is the end of a sentence that
            begins with the image's name.
    """
    if min(size) < LATENT:
        raise DatasetError(f"is only {size[0]}x{size[1]} px; use an image of at least {LATENT}x{LATENT} px.")
    if not config.enable_bucket:
        if config.random_crop and size[0] >= config.resolution[0] and size[1] >= config.resolution[1]:
            return Placement(size, config.resolution)  # as sd-scripts: a random part at the image's own scale
        return Placement(_cover(size, config.resolution), config.resolution)
    if config.bucket_no_upscale:
        return _place_without_upscaling(size, config.resolution, config.bucket_reso_steps)
    buckets = bucket_resolutions(
        config.resolution, config.min_bucket_reso, config.max_bucket_reso, config.bucket_reso_steps
    )
    aspect = size[0] / size[1]
    bucket = min(buckets, key=lambda b: abs(b[0] / b[1] - aspect))  # no two share one, so an exact size wins
    return Placement(_cover(size, bucket), bucket)


def _cover(size: Size, bucket: Size) -> Size:
    """The smallest size of the image's aspect ratio that covers the bucket."""
    wider = size[0] / size[1] > bucket[0] / bucket[1]
    scale = bucket[1] / size[1] if wider else bucket[0] / size[0]
    return (int(size[0] * scale + 0.5), int(size[1] * scale + 0.5))


def _place_without_upscaling(size: Size, resolution: Size, steps: int) -> Placement:
    """Shrink to the resolution's area if larger, then floor both sides to ``steps``."""
    resized = size
    if size[0] * size[1] > resolution[0] * resolution[1]:
        resized = _shrunk(size, resolution[0] * resolution[1], steps)
    bucket = (resized[0] // steps * steps, resized[1] // steps * steps)
    if not all(bucket):
        coarse = steps > 16 and 4 * steps > min(resolution)
        at = "" if resized == size or coarse else f", {resized[0]}x{resized[1]} px at the training resolution"
        remedy = "set bucket_reso_steps to 16" if coarse else "crop or replace it"
        raise DatasetError(
            f"is {size[0]}x{size[1]} px{at}, but its shorter side needs {steps} px; {remedy}, or set "
            "bucket_no_upscale to false."
        )
    return Placement(resized, bucket)


def _shrunk(size: Size, area: int, steps: int) -> Size:
    """Shrink to an area; of width and height, round down to ``steps`` the one that keeps the aspect ratio better."""

    def rounded(side: float) -> int:
        return int(side + 0.5) // steps * steps

    aspect = size[0] / size[1]
    ideal_width = math.sqrt(area * aspect)
    ideal_height = area / ideal_width
    width, height = rounded(ideal_width), rounded(ideal_height)
    width_error = _error(width, rounded(width / aspect), aspect)
    height_error = _error(rounded(height * aspect), height, aspect)
    if width_error < height_error:
        return (width, int(width / aspect + 0.5))
    return (int(height * aspect + 0.5), height)


def _error(width: int, height: int, aspect: float) -> float:
    return abs(width / height - aspect) if width and height else math.inf


def aspect_error(size: Size, bucket: Size) -> float:
    """How far the bucket's aspect ratio is from the image's; kohya's "ar error"."""
    return abs(bucket[0] / bucket[1] - size[0] / size[1])


def crop_box(resized: Size, bucket: Size, rng: random.Random | None = None) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the crop: the centre, or a random place if there is a generator."""
    spare = (resized[0] - bucket[0], resized[1] - bucket[1])
    left, top = (rng.randint(0, s) if rng else s // 2 for s in spare)
    return (left, top, left + bucket[0], top + bucket[1])


def size_conditioning(size: Size, bucket: Size, flip: bool = False) -> SizeConditioning:
    """SDXL's size conditioning as kohya computes it.

    The crop is a function of the two aspect ratios only (the margins that the whole image would leave in the bucket):
    neither the true nor a random crop position enters, so that files trained here and there see the same numbers.
    """
    if bucket[0] / bucket[1] > size[0] / size[1]:
        width, height = bucket[1] * size[0] / size[1], float(bucket[1])
    else:
        width, height = float(bucket[0]), bucket[0] / (size[0] / size[1])
    left, top = (bucket[0] - width) // 2, (bucket[1] - height) // 2
    if flip:
        left = bucket[0] - (left + width)
    return SizeConditioning((size[1], size[0]), (int(top), int(left)), (bucket[1], bucket[0]))
