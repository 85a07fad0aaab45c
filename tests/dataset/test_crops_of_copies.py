"""Crops of copies: cut from the photo, fitted to a bucket, remembered, undone; nobody's own files change."""

from __future__ import annotations

import hashlib
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_trainer.config import DatasetConfig
from lora_trainer.dataset.buckets import place
from lora_trainer.dataset.checks.images import lost
from lora_trainer.dataset.copies import RECORD, read_record
from lora_trainer.dataset.crops import UNCROPPED, crop, crop_of, fitted_box, shapes, suggestion, uncrop, whole_of
from lora_trainer.dataset.layout import list_folder
from lora_trainer.dataset.prepare import prepare
from lora_trainer.dataset.subject import best_box, box_of, find_subject
from lora_trainer.errors import ConfigError, DatasetError, FileError

CONFIG = DatasetConfig()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A photo of 1600x1200 px with another colour at each place."""
    y, x = np.mgrid[0:1200, 0:1600]
    path = tmp_path / "photos" / "a.jpg"
    path.parent.mkdir()
    Image.fromarray(np.stack([x * 255 // 1600, y * 255 // 1200, (x + y) % 256], -1).astype(np.uint8)).save(path)
    (path.parent / "a.txt").write_text("zwx, a plane")
    return path


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def test_a_crop_is_cut_from_the_photo_and_taken_back(photo: Path, tmp_path: Path) -> None:
    before = digest(photo.parent)
    made = prepare([photo.parent], tmp_path / "set", "zwx", 1)
    (copy,) = list_folder(made.target).images
    first = copy.read_bytes()
    assert Image.open(copy).size == (1182, 887) and crop_of(copy) is None, "a photo is made smaller"
    cut = crop(copy, (0.5, 0.25, 1.0, 1.0), CONFIG)
    with Image.open(cut) as image:
        assert image.width > 700, "more pixels than the copy has there"
        red, green, _ = image.getpixel((0, 0))
        assert abs(red - 128) <= 3 and abs(green - 64) <= 3, "what was asked for"
    assert crop_of(cut) == (0.5, 0.25, 1.0, 1.0) and whole_of(cut).read_bytes() == first
    assert [path.name for path in list_folder(made.target).images] == ["a.png"], "nothing else is trained on"
    crop(cut, (0, 0, 0.5, 0.5), CONFIG)
    assert Image.open(cut).getpixel((0, 0))[0] < 4, "of the whole picture again, not of the crop"
    (copy,) = [uncrop(cut)]
    assert copy.read_bytes() == first and crop_of(copy) is None and not (made.target / UNCROPPED).exists()
    assert digest(photo.parent) == before and (made.target / "a.txt").read_text() == "zwx, a plane"


def test_without_the_photo_the_copy_is_cut(photo: Path, tmp_path: Path) -> None:
    made = prepare([photo.parent], tmp_path / "set", "zwx", 1)
    photo.write_bytes(b"another file by now")
    (copy,) = list_folder(made.target).images
    cut = crop(copy, (0.0, 0.0, 0.5, 1.0), CONFIG)
    width, height = Image.open(cut).size
    assert abs(width - 591) <= 64 and height <= 887
    renamed = made.target.rename(made.target.with_name("5_zwx"))
    assert uncrop(renamed / cut.name).name == "a.png", "a folder that was renamed still knows its copies"


@pytest.mark.parametrize("size", [(1600, 1200), (700, 1900)])
@pytest.mark.parametrize("no_upscale", [True, False])
def test_a_crop_has_the_shape_of_its_bucket(size: tuple[int, int], no_upscale: bool) -> None:
    config = DatasetConfig(bucket_no_upscale=no_upscale)
    for box in ((0.1, 0.2, 0.8, 0.7), (0.0, 0.0, 0.45, 1.0), (0.3, 0.3, 0.99, 0.6)):
        left, top, right, bottom = fitted_box(box, size, config)
        assert box[0] * size[0] - 1 <= left < right <= box[2] * size[0] + 1
        assert box[1] * size[1] - 1 <= top < bottom <= box[3] * size[1] + 1
        cut = (right - left, bottom - top)
        assert lost(cut, place(cut, config)) < 0.02, "hardly anything more is cut off in training"
    assert {(512, 512), (448, 576), (576, 448)} <= {*shapes(config)}
    assert shapes(DatasetConfig(enable_bucket=False, resolution=(512, 768))) == [(512, 768)]


def test_what_cannot_be_cropped(photo: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"a\.jpg isn't a copy that was made here, and your own files stay"):
        crop(photo, (0, 0, 0.5, 0.5), CONFIG)
    made = prepare([photo.parent], tmp_path / "set", "zwx", 1)
    (copy,) = list_folder(made.target).images
    with pytest.raises(DatasetError, match=r"What the crop keeps is 32x24 px"):
        crop(copy, (0, 0, 0.02, 0.02), CONFIG)
    for wrong in ((0, 0, 0), "a,b,c,d", (0.5, 0, 0.4, 1), (0, 0, 1, 1.1), None):
        with pytest.raises(ConfigError, match="give left, top, right and bottom as shares"):
            box_of(wrong)
    assert uncrop(copy) == copy, "nothing to take back"
    (made.target / RECORD).write_text('{"copies": {"a": 1}}')
    with pytest.raises(FileError, match=r"\.prepared\.json is damaged; prepare the photos again"):
        read_record(made.target)


def test_a_copy_that_was_retouched_is_cropped_as_it_is(photo: Path, tmp_path: Path) -> None:
    (copy,) = list_folder(prepare([photo.parent], tmp_path / "set", "zwx", 1).target).images
    with Image.open(copy) as image:
        Image.new("RGB", image.size, "red").save(copy)
    retouched = copy.read_bytes()
    cut = crop(crop(copy, (0, 0, 0.5, 1), CONFIG), (0.5, 0, 1, 1), CONFIG)
    assert Image.open(cut).convert("RGB").getpixel((9, 9)) == (255, 0, 0)
    assert uncrop(cut).read_bytes() == retouched


def test_what_somebody_put_beside_a_copy_is_neither_lost_nor_made_useless(photo: Path, tmp_path: Path) -> None:
    (copy,) = list_folder(prepare([photo.parent], tmp_path / "set", "zwx", 1).target).images
    first = copy.read_bytes()
    own = copy.with_suffix(".webp")
    for beside, words in ((own, "has the same name"), (copy.with_name("a-masklabel.png"), "its mask")):
        Image.new("L", Image.open(copy).size, 255).save(beside)
        before = digest(copy.parent)
        with pytest.raises(DatasetError, match=words):
            crop(copy, (0.5, 0.25, 1.0, 1.0), CONFIG)
        assert digest(copy.parent) == before
        beside.unlink()
    cut = crop(copy, (0.5, 0.25, 1.0, 1.0), CONFIG)
    Image.new("RGB", (64, 64)).save(own)
    with pytest.raises(DatasetError, match="has the same name"):
        uncrop(cut)
    own.unlink()
    Image.new("RGB", (640, 640), "red").save(cut)  # retouched by hand
    edited = cut.read_bytes()
    assert uncrop(cut).read_bytes() == first and (copy.parent / "set-aside" / cut.name).read_bytes() == edited


def test_photos_are_cropped_to_their_subject_when_asked(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    noise = np.random.default_rng(1).integers(0, 40, (600, 900, 3), np.uint8)
    Image.fromarray(noise).save(photos / "even.png")
    noise[100:400, 500:800] = (230, 120, 20)
    Image.fromarray(noise).save(photos / "ball.png")
    told: list[tuple[int, int, str]] = []
    made = prepare([photos], tmp_path / "set", "zwx", 1, crops=True, progress=lambda *stage: told.append(stage))
    assert told[-2:] == [(1, 2, "Cropping photos"), (2, 2, "Cropping photos")]
    assert made.cropped == 1 and "1 of them was cropped to the subject; look at each" in "".join(made.lines())
    with Image.open(made.target / "ball.png") as image:
        assert min(image.size) >= 300 and max(image.size) <= 420
        assert (np.asarray(image)[..., 0] > 200).sum() > 0.95 * 300 * 300, "all of it"
    kept = crop_of(made.target / "ball.png")
    assert kept == suggestion(made.target / "ball.png"), "of the whole picture"


def test_where_the_subject_is() -> None:
    gain = np.full((64, 64), -1.0)
    gain[10:20, 40:60] = 2
    assert [64 * side for side in best_box(gain)] == [40, 10, 60, 20]
    assert find_subject(Image.new("RGB", (300, 200), "green")) == (0, 0, 1, 1)


def test_faces_stay_whole_where_opencv_finds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV isn't among what the tests install; what a WebUI's gives is taken as pixels of a smaller picture."""
    picture = Image.new("RGB", (1024, 768), "gray")
    picture.paste("red", (300, 500, 600, 700))
    without = find_subject(picture)

    class Cascade:
        def __init__(self, path: str) -> None:
            assert path == "/cascades/haarcascade_frontalface_alt2.xml"

        def detectMultiScale(self, grey: np.ndarray, *how: object, minSize: object) -> list[tuple[int, int, int, int]]:
            assert grey.shape == (384, 512)
            return [(200, 40, 50, 50)]

    fake = types.SimpleNamespace(
        resize=lambda grey, size, fx, fy, interpolation: grey[::2, ::2], INTER_AREA=3, CascadeClassifier=Cascade,
        data=types.SimpleNamespace(haarcascades="/cascades/"),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "cv2", fake)
    left, top, right, bottom = find_subject(picture)
    assert (left, bottom) == (without[0], without[3]) and right >= 275 / 512
    assert top == pytest.approx(15 / 384), "the face with half of its size around it"
