"""Cases of a lack of variety: sets of one subject before one background, and before many."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps

from lora_trainer.dataset.checks.likeness import thumbnail
from lora_trainer.dataset.checks.limits import ONE_BACKGROUND, SAME
from lora_trainer.dataset.checks.variety import apart_from_usual
from tests.labelled.changes import cropped, exposed
from tests.labelled.counting import Count
from tests.labelled.subjects import SUBJECTS, placed

IMAGES = 12  # of a set
SHAPES = ((320, 320), (280, 360), (360, 280), (320, 400))  # px
TINT = (1.0, 0.75, 0.45)  # of red, green and blue: lamplight
SETS = 3  # of each kind and subject

Picture = Image.Image


def backgrounds(photographs: dict[str, Picture], number: int = SETS) -> Count:
    """Whether it is told of each set that nearly all of its images have one background: ``number`` sets of each kind
    and subject, and four times as many of photographs of nothing in common."""
    count = Count("same background")
    smaller = {name: ImageOps.contain(image, (700, 700)) for name, image in photographs.items()}
    for name, should, images in _sets(smaller, number):
        apart = apart_from_usual([thumbnail(image) for image in images])
        near = sum(one < SAME.value for one in apart)
        count.add(near >= ONE_BACKGROUND.value * len(images), should, name)
    return count


def _sets(photographs: dict[str, Picture], each: int) -> Iterator[tuple[str, bool, list[Picture]]]:
    """A subject at other places and sizes, and in other light, before one background (now and then another one), and
    before many; the same in black and white, and in dim lamplight; always at the same place, before many; and
    photographs of nothing in common."""
    for name in sorted(set(photographs) & set(SUBJECTS)):
        others = [one for one in sorted(photographs) if one != name]
        for number in range(each):
            rng = random.Random(f"{name} {number}")
            ground = rng.choice(others)
            chosen = [ground if place < IMAGES - number else rng.choice(others) for place in range(IMAGES)]
            shares = [rng.uniform(0.25, 0.7) for _ in chosen]
            one = [
                _before(photographs, name, other, 0.8, min(share, 0.6), rng)
                for other, share in zip(chosen, shares, strict=True)
            ]
            many = [_before(photographs, name, rng.choice(others), 0.5, share, rng) for share in shares]
            yield f"{name} before {ground}", True, one
            yield f"{name} before {ground}, in black and white", True, [_grey(image) for image in one]
            yield f"{name} before many", False, many
            yield f"{name} before many, in black and white", False, [_grey(image) for image in many]
            yield f"{name} before many, in lamplight", False, [_lamplit(image) for image in many]
            one_place = [_before(photographs, name, rng.choice(others), 0.5, 0.6, rng, place=name) for _ in chosen]
            yield f"{name} at one place", False, one_place
    rng = random.Random("mixed")
    for number in range(4 * each):
        some = rng.sample(sorted(photographs), min(IMAGES, len(photographs)))
        yield f"mixed {number}", False, [exposed(cropped(photographs[one], rng, 0.5, 1), 0) for one in some]


def _before(
    photographs: dict[str, Picture],
    name: str,
    ground: str,
    least: float,
    share: float,
    rng: random.Random,
    place: str = "",
) -> Picture:
    """The subject of a photograph before a part, ``least`` or more of each side, of another one.

    Args:
        place: a name of a place, where the subject is put each time, in a picture of the same shape.
    """
    size = SHAPES[0] if place else rng.choice(SHAPES)
    behind = ImageOps.fit(cropped(photographs[ground], rng, least, 1), size)
    image, _ = placed(photographs[name], SUBJECTS[name], behind, share, random.Random(place) if place else rng)
    return exposed(image, rng.uniform(-0.3, 0.3))


def _grey(image: Picture) -> Picture:
    return image.convert("L").convert("RGB")


def _lamplit(image: Picture) -> Picture:
    return exposed(Image.fromarray((np.asarray(image) * TINT).astype(np.uint8)), -1.2)
