"""What is done to a photograph, so that it is known what a check should say of it."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps
from scipy.signal import fftconvolve

STANDARD = 512  # px: strengths are given for a picture of this side, and grow with it

Picture = Image.Image


def jpeg(image: Picture, quality: int) -> Picture:
    """Through a JPEG file."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def noisy(image: Picture, sigma: float) -> Picture:
    """Sensor noise."""
    grain = np.random.default_rng(7).normal(0, sigma, (image.height, image.width, 3))
    return Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))


def cropped(image: Picture, rng: random.Random, least: float, most: float) -> Picture:
    """A part, with a share of each side between ``least`` and ``most``."""
    width, height = (round(side * rng.uniform(least, most)) for side in image.size)
    left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))


def resized(image: Picture, factor: float) -> Picture:
    """Larger or smaller."""
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.LANCZOS)


def exposed(image: Picture, stops: float) -> Picture:
    """Exposed longer or shorter by so many stops; what is too bright is lost."""
    linear = (np.asarray(image) / 255.0) ** 2.2 * 2.0**stops
    return Image.fromarray((np.clip(linear, 0, 1) ** (1 / 2.2) * 255 + 0.5).astype(np.uint8))


def _scale(image: Picture) -> float:
    return math.sqrt(image.width * image.height) / STANDARD


def defocused(image: Picture, radius: float) -> Picture:
    """A lens out of focus."""
    radius *= _scale(image)
    reach = math.ceil(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return _filtered(image, np.clip(radius + 0.5 - np.hypot(x, y), 0, 1))


def shaken(image: Picture, length: float, angle: float) -> Picture:
    """A camera that moved."""
    length *= _scale(image)
    reach = math.ceil(length / 2)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    return _filtered(image, np.clip(1 - np.abs(across), 0, 1) * (np.abs(along) <= length / 2))


def softened(image: Picture, sigma: float) -> Picture:
    """Gaussian blur."""
    return image.filter(ImageFilter.GaussianBlur(sigma * _scale(image)))


def _filtered(image: Picture, kernel: np.ndarray) -> Picture:
    kernel = kernel / kernel.sum()
    reach = kernel.shape[0] // 2
    wide = np.pad(np.asarray(image).astype(float), ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    planes = [fftconvolve(wide[..., plane], kernel, "valid") for plane in range(3)]
    return Image.fromarray(np.clip(np.stack(planes, -1) + 0.5, 0, 255).astype(np.uint8))


def before_blur(image: Picture) -> Picture:
    """A sharp middle before a blurred background, as a wide aperture makes it."""
    mask = Image.new("L", image.size, 0)
    width, height = image.size
    mask.paste(255, (width // 4, height // 4, 3 * width // 4, 3 * height // 4))
    return Image.composite(image, softened(image, 6), mask.filter(ImageFilter.GaussianBlur(6)))


def cut_out(image: Picture, colour: str) -> Picture:
    """The middle as an object before an even background, as in a shop."""
    mask = Image.new("L", image.size, 0)
    width, height = image.size
    ImageDraw.Draw(mask).ellipse((width // 8, height // 10, 7 * width // 8, 9 * height // 10), fill=255)
    return Image.composite(image, Image.new("RGB", image.size, colour), mask)


def letterboxed(image: Picture, share: float) -> Picture:
    """Black stripes above and below."""
    return ImageOps.expand(image, (0, round(image.height * share)), "black")


def framed(image: Picture, share: float, colour: str) -> Picture:
    """A frame on all sides."""
    return ImageOps.expand(image, round(min(image.size) * share), colour)


def striped(image: Picture, share: float) -> Picture:
    """White stripes left and right, as somebody makes a picture square."""
    return ImageOps.expand(image, (round(image.width * share), 0), "white")


Case = tuple[str, bool, Picture]  # what was done, whether the check should speak, the result


def blur_cases(image: Picture) -> Iterator[Case]:
    """Blurred, or not."""
    yield "as it is", False, image
    yield "JPEG 75", False, jpeg(image, 75)
    yield "noise", False, noisy(image, 5)
    yield "cropped", False, cropped(image, random.Random(1), 0.75, 0.75)
    yield "blurred background", False, before_blur(image)
    yield "Gaussian 2.5", True, softened(image, 2.5)
    yield "Gaussian 4", True, softened(image, 4)
    yield "defocus 4", True, defocused(image, 4)
    yield "shaken 15", True, shaken(image, 15, 0.4)
    yield "shaken 25", True, shaken(image, 25, 2.0)
    yield "Gaussian 3, JPEG 85", True, jpeg(softened(image, 3), 85)


def exposure_cases(image: Picture) -> Iterator[Case]:
    """Too dark or too bright, or not."""
    yield "as it is", False, image
    yield "1 stop darker", False, exposed(image, -1)
    yield "half a stop brighter", False, exposed(image, 0.5)
    yield "before white", False, cut_out(image, "white")
    yield "before black", False, cut_out(image, "black")
    yield "3 stops darker", True, exposed(image, -3)
    yield "4 stops darker", True, exposed(image, -4)
    yield "3 stops brighter", True, exposed(image, 3)
    yield "4 stops brighter", True, exposed(image, 4)


def border_cases(image: Picture) -> Iterator[Case]:
    """With a border, or not."""
    yield "as it is", False, image
    yield "cropped", False, cropped(image, random.Random(2), 0.6, 0.9)
    yield "before white", False, cut_out(image, "white")
    yield "before black", False, cut_out(image, "black")
    yield "2 stops darker", False, exposed(image, -2)
    yield "letterbox 12 %", True, letterboxed(image, 0.12)
    yield "letterbox, JPEG 80", True, jpeg(letterboxed(image, 0.06), 80)
    yield "white stripes", True, striped(image, 0.15)
    yield "grey frame 4 %", True, framed(image, 0.04, "#808080")
    yield "white frame, JPEG 80", True, jpeg(framed(image, 0.06, "white"), 80)


def twins(image: Picture, seed: str) -> Iterator[tuple[str, Picture]]:
    """The same picture again."""
    rng = random.Random(seed)
    yield "re-encoded", jpeg(image, 60)
    yield "resized", resized(image, 0.6)
    yield "mirrored", ImageOps.mirror(image)
    yield "a little cropped", cropped(image, rng, 0.9, 0.95)
    yield "cropped", cropped(image, rng, 0.72, 0.85)
    yield "brighter", exposed(image, 0.7)
    yield "mirrored, resized, JPEG", jpeg(resized(ImageOps.mirror(image), 0.7), 75)
    yield "cropped, resized, JPEG", jpeg(resized(cropped(image, rng, 0.8, 0.9), 0.7), 75)
    yield "mirrored, cropped", ImageOps.mirror(cropped(image, rng, 0.8, 0.9))
    yield "stretched", image.resize((image.width, round(image.height * 0.85)), Image.Resampling.LANCZOS)


def relatives(image: Picture) -> Iterator[tuple[str, Picture]]:
    """Other pictures of the same thing: parts that have little in common."""
    width, height = image.size
    yield "upper left", image.crop((0, 0, width * 6 // 10, height * 6 // 10))
    yield "lower right", image.crop((width * 4 // 10, height * 4 // 10, width, height))
