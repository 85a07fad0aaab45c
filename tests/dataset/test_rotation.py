"""Rotation of copies: of the photo's own pixels, with crop and mask, and back byte for byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_trainer.config import DatasetConfig
from lora_trainer.dataset.crops import crop, crop_of, rotation_of, uncrop, whole_picture
from lora_trainer.dataset.prepare import prepare
from lora_trainer.dataset.rotation import rotate, rotated_box
from lora_trainer.errors import ConfigError, DatasetError

CONFIG = DatasetConfig(resolution=(64, 64), min_bucket_reso=64, bucket_reso_steps=8)
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Of a photo of 320x240 px with a colour in each quarter: red and green above, blue and white below."""
    quarters = np.array([[RED, GREEN], [BLUE, WHITE]], np.uint8).repeat(120, 0).repeat(160, 1)
    (tmp_path / "photos").mkdir()
    Image.fromarray(quarters).save(tmp_path / "photos" / "a.jpg", quality=95, subsampling=0)
    return prepare([tmp_path / "photos"], tmp_path / "set", "zwx", 1).target / "a.jpg"


def corners(path: Path) -> list[str]:
    """The colours from left to right, first above, then below."""
    with Image.open(path) as image:
        places = [(x * image.width // 4, y * image.height // 4) for y in (1, 3) for x in (1, 3)]
        pixels = [np.array(image.convert("RGB").getpixel(place)) for place in places]
    named = {"red": RED, "green": GREEN, "blue": BLUE, "white": WHITE}
    return [min(named, key=lambda name: abs(pixel - named[name]).sum()) for pixel in pixels]


def test_a_copy_is_rotated_and_rotated_back(copy: Path) -> None:
    first = copy.read_bytes()
    turned = rotate(copy, 90)
    assert turned.name == "a.png" and not copy.exists() and rotation_of(turned) == 90
    assert corners(turned) == ["blue", "red", "white", "green"] and Image.open(turned).size == (240, 320)
    assert corners(rotate(turned, 180)) == ["green", "white", "red", "blue"]
    assert rotate(turned, 90) == copy and copy.read_bytes() == first and rotation_of(copy) == 0
    assert not turned.exists() and not (copy.parent / ".uncropped").exists()


def test_crop_and_rotation_go_together(copy: Path) -> None:
    first = copy.read_bytes()
    cut = crop(copy, (0.5, 0.0, 1.0, 0.5), CONFIG)
    assert set(corners(cut)) == {"green"}
    turned = rotate(cut, 270, CONFIG)
    assert crop_of(turned) == (0.0, 0.0, 0.5, 0.5) and set(corners(turned)) == {"green"}
    assert whole_picture(turned).size == (240, 320)
    uncrop(turned)
    assert corners(turned) == ["green", "white", "red", "blue"], "whole, and still rotated"
    assert uncrop(turned) == turned, "there is no crop to take back"
    assert rotate(turned, 90).read_bytes() == first


def test_where_a_part_is_after_a_turn() -> None:
    assert rotated_box((0.0, 0.0, 0.25, 0.5), 90) == (0.5, 0.0, 1.0, 0.25)
    assert rotated_box((0.0, 0.0, 0.25, 0.5), 180) == (0.75, 0.5, 1.0, 1.0)
    assert rotated_box((0.125, 0.25, 0.5, 1.0), 270) == (0.25, 0.5, 1.0, 0.875)


def test_its_mask_turns_with_it(copy: Path) -> None:
    mask = copy.with_name("a-masklabel.png")
    pixels = np.zeros((240, 320), np.uint8)
    pixels[:120, :160] = 255  # where the image is red
    Image.fromarray(pixels).save(mask)
    turned = rotate(copy, 90)
    with Image.open(mask) as image:
        assert image.mode == "L" and np.array_equal(np.asarray(image), np.rot90(pixels, -1))
    rotate(turned, 270)
    assert np.array_equal(np.asarray(Image.open(mask)), pixels)
    mask.rename(mask.with_suffix(".jpg"))
    with pytest.raises(DatasetError, match=r"The mask a-masklabel\.jpg can't be rotated without loss"):
        rotate(copy, 90)
    assert rotation_of(copy) == 0 and corners(copy)[0] == "red", "nothing was done"


def test_what_was_retouched_is_rotated_as_it_is(copy: Path) -> None:
    Image.new("RGB", (320, 240), GREEN).save(copy)
    retouched = copy.read_bytes()
    turned = rotate(copy, 90)
    assert set(corners(turned)) == {"green"}
    Image.new("RGB", (240, 320), BLUE).save(turned)
    assert rotate(turned, 270).read_bytes() == retouched
    assert set(corners(copy.parent / "set-aside" / "a.png")) == {"blue"}, "what was painted afterwards is kept"


@pytest.mark.parametrize("degrees", [0, 45, 360, "90", True, None])
def test_only_quarter_turns(copy: Path, degrees: object) -> None:
    with pytest.raises(ConfigError, match=r"degrees can't be .*; give one of 90, 180, 270"):
        rotate(copy, degrees)


def test_nobodys_own_file_is_rotated(copy: Path) -> None:
    own = copy.parents[2] / "photos" / "a.jpg"
    before = own.read_bytes()
    with pytest.raises(DatasetError, match="isn't a copy that was made here"):
        rotate(own, 90)
    assert own.read_bytes() == before
