"""Cases of watermarks: sets of photographs with the same lettering at the same place, and without."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont, ImageOps

from lora_trainer.dataset.checks.marks import common, marks
from tests.labelled.changes import cropped, jpeg
from tests.labelled.counting import Count
from tests.labelled.subjects import SUBJECTS, placed

IMAGES = 12  # of a set
SHAPES = ((512, 512), (448, 576), (576, 448))  # px
TEXTS = ("Jane Smith", "SAMPLE", "photo.example", "2024-05-01", "STOCK PREVIEW", "@zork_art")
PLACES = ((0.03, 0.95), (0.97, 0.96), (0.97, 0.03), (0.03, 0.03), (0.5, 0.94), (0.5, 0.5))  # of the room left and above
MIXED = 24  # sets of photographs of nothing in common

Picture = Image.Image


class Mark(NamedTuple):
    """Lettering over a picture."""

    text: str
    width: float  # share of the picture's
    alpha: float
    colour: str
    place: tuple[float, float]

    @classmethod
    def some(cls, rng: random.Random) -> Mark:
        """Any: faint to solid, small to large."""
        colour = rng.choice(("white", "white", "black", "red"))
        return cls(rng.choice(TEXTS), rng.uniform(0.15, 0.4), rng.uniform(0.4, 1), colour, rng.choice(PLACES))

    def over(self, image: Picture) -> Picture:
        """The picture with it."""
        font = ImageFont.load_default()
        letters = Image.new("L", font.getbbox(self.text)[2:], 0)
        ImageDraw.Draw(letters).text((0, 0), self.text, fill=round(255 * self.alpha), font=font)
        width = round(self.width * image.width)
        letters = letters.resize((width, round(width * letters.height / letters.width)), Image.Resampling.BICUBIC)
        room = (image.width - letters.width, image.height - letters.height)
        mask = Image.new("L", image.size, 0)
        mask.paste(letters, (round(self.place[0] * room[0]), round(self.place[1] * room[1])))
        return Image.composite(Image.new("RGB", image.size, self.colour), image, mask)


def watermarks(photographs: dict[str, Picture], mixed: int = MIXED) -> Count:
    """Whether each set is said to have the same marks: each once without, and once with one."""
    count = Count("watermarks")
    smaller = {name: ImageOps.contain(image, (600, 600)) for name, image in photographs.items()}
    for name, images in _sets(smaller, mixed):
        mark = Mark.some(random.Random(name))
        for marked in (False, True):
            packed = [marks(jpeg(mark.over(image) if marked else image, 85)) for image in images]
            count.add(common(packed)[0] is not None, marked, f"{name}, {mark if marked else 'without'}")
    return count


def _sets(photographs: dict[str, Picture], mixed: int) -> Iterator[tuple[str, list[Picture]]]:
    """Photographs of nothing in common; parts of one photograph; a subject at other places before one background that
    doesn't move, and before parts of it."""
    for number in range(mixed):
        rng = random.Random(f"mixed {number}")
        names, size = (rng.choices(sorted(photographs), k=IMAGES), rng.choice(SHAPES))
        yield f"mixed {number}", [ImageOps.fit(cropped(photographs[one], rng, 0.5, 1), size) for one in names]
    for name in sorted(photographs):
        rng = random.Random(f"parts of {name}")
        parts = [cropped(photographs[name], rng, 0.35, 0.75) for _ in range(IMAGES)]
        yield f"parts of {name}", [ImageOps.fit(part, SHAPES[0]) for part in parts]
    for name in sorted(set(photographs) & set(SUBJECTS)):
        rng = random.Random(f"background of {name}")
        ground = photographs[rng.choice([one for one in sorted(photographs) if one != name])]
        for least, how in ((1, "still"), (0.8, "moving")):
            grounds = [ImageOps.fit(cropped(ground, rng, least, 1), SHAPES[0]) for _ in range(IMAGES)]
            yield f"{name} before a {how} background", [
                placed(photographs[name], SUBJECTS[name], one, rng.uniform(0.25, 0.6), rng)[0] for one in grounds
            ]  # fmt: skip
