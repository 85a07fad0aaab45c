"""How well the subject of an image is found: in photographs whose subject we marked by hand, in parts of them, and in
their subjects before other backgrounds; by what the program does, and by what else was tried."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from lora_trainer.dataset.subject import LEAST, MARGIN, SIDE, Box, best_box, edges, find_subject, smooth
from tests.labelled.pictures import halves

SUBJECTS: dict[str, Box] = {  # left, top, right, bottom as shares of the sides
    "pillow/exif_gps_typeerror.jpg": (0.0, 0.27, 0.92, 0.70), "pillow/flower.jpg": (0.38, 0.34, 0.61, 0.67),
    "pillow/flower2.jpg": (0.23, 0.0, 0.90, 0.85), "pillow/hopper_256x256.ico": (0.2, 0.0, 0.85, 1.0),
    "pillow/iptc.jpg": (0.04, 0.27, 0.98, 0.77), "pillow/tv.rgb": (0.25, 0.08, 0.85, 0.9),
    "pillow/xmp_test.jpg": (0.36, 0.2, 0.68, 0.67), "skimage/astronaut.png": (0.05, 0.03, 0.72, 1.0),
    "skimage/camera.png": (0.0, 0.12, 0.66, 1.0), "skimage/chelsea.png": (0.03, 0.0, 0.87, 1.0),
    "skimage/coffee.png": (0.12, 0.04, 0.80, 1.0), "skimage/motorcycle_left.png": (0.13, 0.28, 0.93, 0.90),
    "skimage/rocket.jpg": (0.42, 0.28, 0.58, 1.0), "sklearn/china.jpg": (0.10, 0.06, 0.60, 0.95),
    "sklearn/flower.jpg": (0.26, 0.20, 0.70, 0.84),
}  # fmt: skip
BACKGROUNDS = (
    "skimage/brick.png", "skimage/grass.png", "skimage/gravel.png", "pillow/frozenpond.mpo", "pillow/fujifilm.mpo",
    "pillow/icc_profile_big.jpg", "skimage/hubble_deep_field.jpg", "skimage/ihc.png", "pillow/sugarshack.mpo",
    "pillow/junk_jpeg_header.jpg",
)  # fmt: skip
WHOLE = 0.9  # of the subject's box: what is kept of a subject that counts as whole


class Found(NamedTuple):
    """How good the boxes of one way are, on average."""

    overlap: float  # of box and subject, as intersection over union
    kept: float  # of the subject's box
    whole: float  # share of the cases


def spectral_residual(picture: Image.Image) -> np.ndarray:
    """What is unusual in the spectrum (Hou and Zhang 2007, "Saliency detection: a spectral residual approach")."""
    grey = np.asarray(picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), float)
    spectrum = np.fft.fft2(grey)
    log = np.log(np.abs(spectrum) + 1e-9)
    return smooth(np.abs(np.fft.ifft2(np.exp(log - smooth(log, 1) + 1j * np.angle(spectrum)))) ** 2, 3)


def _by(map_of: Callable[[Image.Image], np.ndarray]) -> Callable[[Image.Image], Box]:
    def box(picture: Image.Image) -> Box:
        seen = map_of(picture)
        left, top, right, bottom = best_box(seen - LEAST * seen.mean())
        wide, high = MARGIN * (right - left), MARGIN * (bottom - top)
        return (max(0.0, left - wide), max(0.0, top - high), min(1.0, right + wide), min(1.0, bottom + high))

    return box


WAYS: dict[str, Callable[[Image.Image], Box]] = {
    "what differs from the rim and has edges (used)": find_subject,
    "no crop": lambda picture: (0.0, 0.0, 1.0, 1.0),
    "the middle, 70 % of each side": lambda picture: (0.15, 0.15, 0.85, 0.85),
    "edges alone": _by(edges),
    "spectral residual": _by(spectral_residual),
}


def cases(
    photographs: dict[str, Image.Image], names: list[str], backgrounds: list[str]
) -> Iterator[tuple[Image.Image, Box]]:
    """Each photograph, three parts of it that hold the whole subject, and its subject four times elsewhere."""
    for name in names:
        image, rng = photographs[name], random.Random(name)
        yield image, SUBJECTS[name]
        box = tuple(share * side for share, side in zip(SUBJECTS[name], image.size * 2, strict=True))
        for _ in range(3):
            left, top = rng.uniform(0, box[0]), rng.uniform(0, box[1])
            right, bottom = rng.uniform(box[2], image.width), rng.uniform(box[3], image.height)
            part = image.crop((int(left), int(top), int(right) + 1, int(bottom) + 1))
            yield part, _shares((box[0] - left, box[1] - top, box[2] - left, box[3] - top), part.size)
        for turn in range(4):
            size = (640, 480) if turn % 2 else (480, 640)
            ground = ImageOps.fit(photographs[rng.choice(backgrounds)], size)
            share = rng.uniform(0.3, 0.6)
            yield placed(image, SUBJECTS[name], ground, share, rng)


def placed(
    image: Image.Image, box: Box, ground: Image.Image, share: float, rng: random.Random
) -> tuple[Image.Image, Box]:
    """The subject of a photograph, fitted into that share of a background's sides, somewhere before it; and where."""
    edges = tuple(int(part * side) for part, side in zip(box, image.size * 2, strict=True))
    subject = ImageOps.contain(image.crop(edges), (int(ground.width * share), int(ground.height * share)))
    mask = Image.new("L", subject.size, 0)
    ImageDraw.Draw(mask).ellipse((0, 0, subject.width - 1, subject.height - 1), fill=255)
    x, y = rng.randint(0, ground.width - subject.width), rng.randint(0, ground.height - subject.height)
    ground.paste(subject, (x, y), mask.filter(ImageFilter.GaussianBlur(2)))
    return ground, _shares((x, y, x + subject.width, y + subject.height), ground.size)


def _shares(box: tuple[float, ...], size: tuple[int, int]) -> Box:
    left, top, right, bottom = (min(1.0, value / side) for value, side in zip(box, size * 2, strict=True))
    return (left, top, right, bottom)


def overlap(box: Box, subject: Box) -> tuple[float, float]:
    """Intersection over union, and how much of the subject is inside."""
    wide, high = min(box[2], subject[2]) - max(box[0], subject[0]), min(box[3], subject[3]) - max(box[1], subject[1])
    both = max(0.0, wide) * max(0.0, high)
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in (box, subject)]
    return both / (sum(areas) - both), both / areas[1]


def measured(photographs: dict[str, Image.Image], half: int) -> dict[str, Found]:
    """Every way on the cases of one half of the photographs and backgrounds: 0 is that on which was chosen."""
    names = halves([name for name in SUBJECTS if name in photographs])[half]
    grounds = halves([name for name in BACKGROUNDS if name in photographs])[half]
    made = list(cases(photographs, names, grounds))
    results = {}
    for way, find in WAYS.items():
        pairs = np.array([overlap(find(image), subject) for image, subject in made])
        results[way] = Found(*pairs.mean(0), (pairs[:, 1] >= WHOLE).mean())
    return results


def table(photographs: dict[str, Image.Image]) -> str:
    """For the docs: the half that nothing was chosen on, then the other."""
    chosen, new = (measured(photographs, half) for half in (0, 1))
    rows = [
        f"| {way} | {found.overlap:.2f} | {found.kept:.2f} | {found.whole:.2f} | {chosen[way].overlap:.2f} | "
        f"{chosen[way].whole:.2f} |\n" for way, found in new.items()
    ]  # fmt: skip
    head = "| way | overlap | of the subject kept | subject whole | overlap where it was chosen | whole there |\n"
    return head + "|---|---|---|---|---|---|\n" + "".join(rows)
