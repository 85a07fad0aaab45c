"""Cases of what is said of images together, and of crops: sets with a stranger, and subjects that a bucket cuts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageOps

from lora_trainer.dataset.buckets import Placement
from lora_trainer.dataset.checks.advice import kept
from lora_trainer.dataset.checks.images import lost
from lora_trainer.dataset.checks.likeness import thumbnail
from lora_trainer.dataset.checks.limits import CUT, ODD, SUBJECT
from lora_trainer.dataset.checks.outliers import oddness
from lora_trainer.dataset.items import ImageItem
from lora_trainer.dataset.subject import find_subject
from tests.labelled.changes import cropped, exposed
from tests.labelled.counting import FOLDER, Count
from tests.labelled.pictures import halves
from tests.labelled.subjects import BACKGROUNDS, SUBJECTS, cases, overlap

ALIKE = 14  # images of a set
STRANGERS = 3  # sets with one, of each photograph
SHAPES = ((512, 512), (416, 640), (640, 416))  # px, of buckets


def outliers(photographs: dict[str, Image.Image]) -> Count:
    """Sets of parts of one photograph, without and with a part of another one; and sets of photographs that have
    nothing to do with each other, of which none stands out."""
    count = Count("outliers")
    for name, images, stranger in _sets(photographs):
        odd = oddness([thumbnail(image) for image in images])
        for index, one in enumerate(odd):
            count.add(one >= ODD.value, index == ALIKE and bool(stranger), f"{name} and {stranger or 'no other'}")
    return count


def _sets(photographs: dict[str, Image.Image]) -> Iterator[tuple[str, list[Image.Image], str]]:
    for name in sorted(photographs):
        rng = random.Random(f"set of {name}")
        parts = [_part(photographs[name], rng, 0.4, 0.75) for _ in range(ALIKE)]
        yield name, parts, ""
        for other in rng.sample([one for one in sorted(photographs) if one != name], STRANGERS):
            yield name, [*parts, _part(photographs[other], rng, 0.5, 0.9)], other
    rng = random.Random("mixed")
    for number in range(5):
        yield (
            f"mixed {number}",
            [photographs[one] for one in rng.sample(sorted(photographs), min(10, len(photographs)))],
            "",
        )


def _part(image: Image.Image, rng: random.Random, least: float, most: float) -> Image.Image:
    part = cropped(image, rng, least, most)
    return exposed(ImageOps.mirror(part) if rng.random() < 0.5 else part, rng.uniform(-0.6, 0.4))


def subjects_cut(photographs: dict[str, Image.Image], half: int) -> Count:
    """Images with a known subject in buckets of three shapes: whether a fifth or more of it is cut off."""
    count = Count("subject cut off")
    names = halves([name for name in SUBJECTS if name in photographs])[half]
    grounds = halves([name for name in BACKGROUNDS if name in photographs])[half]
    for number, (image, subject) in enumerate(cases(photographs, names, grounds)):
        found = find_subject(image)
        for shape in SHAPES:
            item = _item(image.size, shape)
            if lost(item.size, item.placement) >= CUT.value:
                whole = overlap(_inside(item), subject)[1]
                count.add(kept(item, found) < SUBJECT.value, whole < 0.8, f"case {number} in {shape}")
    return count


def _item(size: tuple[int, int], bucket: tuple[int, int]) -> ImageItem:
    scale = max(bucket[0] / size[0], bucket[1] / size[1])
    resized = (round(size[0] * scale), round(size[1] * scale))
    return ImageItem(Path("x.png"), FOLDER, 1, (), "missing", size, Placement(resized, bucket))


def _inside(item: ImageItem) -> tuple[float, float, float, float]:
    (width, height), (wide, high) = item.placement
    left, top = (width - wide) // 2 / width, (height - high) // 2 / height
    return (left, top, left + wide / width, top + high / height)
