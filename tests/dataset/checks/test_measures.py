"""The measures of one image, on pictures of which is known what they should say, and beside other implementations."""

from __future__ import annotations

import io

import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageDraw, ImageOps
from skimage.measure import blur_effect

from lora_trainer.dataset.checks import likeness, measures
from lora_trainer.dataset.checks.measures import K1, Borders, blur, borders, exposure, jpeg_quality, two_toned
from tests.labelled.changes import framed, softened
from tests.labelled.pictures import photographs


@pytest.fixture(scope="module")
def coffee() -> Image.Image:
    return photographs(None)["skimage/coffee.png"]


def grey(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L"))


def test_blur_grows_as_scikit_images_does(coffee: Image.Image) -> None:
    rungs = [coffee if sigma == 0 else softened(coffee, sigma) for sigma in (0, 0.8, 1.6, 3, 6)]
    ours, theirs = [blur(grey(one)) for one in rungs], [blur_effect(grey(one)) for one in rungs]
    assert ours == sorted(ours) and theirs == sorted(theirs) and ours[-1] - ours[0] > 0.3
    assert np.abs(np.array(ours[2:]) - theirs[2:]).max() < 0.2, (
        "where all is blurred, no tile is sharper than the whole"
    )
    assert 0 <= ours[0] < 0.3 and ours[-1] <= 1
    assert blur(np.full((64, 64), 90, np.uint8)) == 0, "nothing there could be sharp"


def test_exposure_of_known_shares() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None], 100, axis=0)
    found = exposure(np.stack([ramp] * 3, -1), ramp)
    assert found.shadows == pytest.approx(0.05, abs=0.005) and found.lights == pytest.approx(0.99, abs=0.005)
    assert found.clipped == pytest.approx(6 / 256)
    red = np.zeros((10, 10, 3), np.uint8)
    red[:5, :, 0] = 255
    assert exposure(red, np.zeros((10, 10), np.uint8)).clipped == 0.5, "one channel at its end is enough"
    white = np.full((20, 20), 255, np.uint8)
    white[5:15, 5:15] = 80
    assert exposure(np.stack([white] * 3, -1), white).outline == 1


def test_borders_are_found_to_the_pixel(coffee: Image.Image) -> None:
    assert borders(np.asarray(coffee)) == Borders(0, 0, 0, 0)
    whole = framed(coffee, 0.05, "black")
    found = borders(np.asarray(whole))
    assert found == pytest.approx((20 / 640, 20 / 440, 20 / 640, 20 / 440))
    page = np.full((100, 100, 3), 255, np.uint8)
    page[30:70, 45:55] = 20
    assert borders(page) == Borders(0, 0, 0, 0), "an object before white has no straight inner edge"
    assert borders(np.zeros((50, 50, 3), np.uint8)) == Borders(0, 0, 0, 0)


@pytest.mark.parametrize("quality", [5, 25, 49, 50, 51, 75, 90, 95])
def test_the_quality_of_a_jpeg_is_read_from_its_table(coffee: Image.Image, quality: int) -> None:
    file = io.BytesIO()
    coffee.save(file, "JPEG", quality=quality)
    with Image.open(file) as image:
        assert jpeg_quality(image.quantization) == pytest.approx(quality, abs=1)
    assert jpeg_quality({}) is None and jpeg_quality({0: K1}) is None


def test_two_tones(coffee: Image.Image) -> None:
    assert two_toned(np.array([[0, 8, 255, 247]], np.uint8)) == 1
    assert two_toned(grey(coffee)) < 0.1


def test_flat_pictures_are_no_twins() -> None:
    flat = [likeness.thumbnail(Image.new("RGB", (64, 64), color)) for color in ("white", "red", "black")]
    assert likeness.alike(flat, 0.9) == [] == likeness.alike([], 0.9) == likeness.alike(flat[:1], 0.9)


def test_a_thing_of_another_colour_is_no_twin(coffee: Image.Image) -> None:
    red, green, _ = coffee.split()
    other = Image.merge("RGB", (green, red, green))
    small = [likeness.thumbnail(one) for one in (coffee, other, coffee.resize((300, 200)))]
    assert likeness.alike(small, 0.9) == [[0, 2]]


def test_things_of_one_outline_before_white_are_twins_only_if_they_show_the_same() -> None:
    inside = Image.new("L", (300, 300))
    ImageDraw.Draw(inside).ellipse((60, 60, 240, 240), fill=255)

    def before_white(name: str) -> Image.Image:
        thing = Image.fromarray(getattr(skimage.data, name)()).convert("RGB").resize((300, 300))
        return Image.composite(thing, Image.new("RGB", thing.size, "white"), inside)

    things = [before_white(name) for name in ("brick", "grass", "gravel")]
    things += [ImageOps.mirror(things[1]).crop((15, 10, 290, 295)), things[2].resize((128, 128))]
    assert likeness.alike([likeness.thumbnail(one) for one in things], 0.96) == [[1, 3], [2, 4]]


def test_all_windows_at_once_are_those_of_pillow() -> None:
    pictures = np.random.default_rng(0).uniform(0, 255, (3, 64, 64)).astype(np.float32)
    boxes = list(likeness._boxes())
    edges = [tuple(64 * edge for edge in box) for box in boxes]
    resampled = [
        np.asarray(Image.fromarray(one).resize((12, 12), Image.Resampling.BILINEAR, box=box)).ravel()
        for one in pictures for box in edges
    ]  # fmt: skip
    apart = [one - one.mean() for one in resampled]
    single = [one / np.linalg.norm(one) for one in apart]
    assert np.abs(likeness._windows(pictures, boxes, 12) - np.stack(single)).max() < 1e-5


def test_quantiles_and_the_blur_of_whole_numbers_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    for shape in ((8, 9), (31, 200)):
        pixels = rng.integers(0, 256, shape, dtype=np.uint8)
        found = exposure(np.stack([pixels] * 3, -1), pixels)
        assert (found.shadows, found.lights) == pytest.approx(np.quantile(pixels, (0.05, 0.99)) / 255, abs=1e-12)
        wide = np.pad(pixels.astype(float), ((6, 5), (0, 0)), mode="symmetric").cumsum(0)
        means = (wide[11:] - wide[:-11]) / 11
        for again in (measures._steps(pixels, 0)[1], measures._steps(pixels.T, 1)[1].T):
            assert np.abs(again / 11 - np.abs(np.diff(means, axis=0))).max() < 1e-9
