"""From loose photos to a dataset."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from lora_trainer.dataset import prepare as preparing
from lora_trainer.dataset.decode import image_endings, read_image
from lora_trainer.dataset.prepare import check_trigger, free_folder, prepare, steps_sum, suggested_repeats
from lora_trainer.errors import ConfigError, DatasetError, FileError
from tests.labelled.pictures import photographs


@pytest.fixture(scope="module")
def pictures() -> dict[str, Image.Image]:
    return photographs(None)


@pytest.fixture
def photos(tmp_path: Path, pictures: dict[str, Image.Image]) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("china.jpg", "flower.jpg"):
        pictures[f"sklearn/{name}"].save(folder / name, quality=95)
    (folder / "china.txt").write_text("a tower")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_copies_are_named_and_described(photos: Path, tmp_path: Path) -> None:
    before = content(photos)
    made = prepare([photos], tmp_path / "set", " zwx  cup ", 7)
    assert (made.target.name, made.images, made.described, made.changed) == ("7_zwx cup", 2, 1, 0)
    copies = content(made.target)
    assert sorted(copies) == [".prepared.json", "china.jpg", "china.txt", "flower.jpg", "flower.txt"]
    assert copies["china.jpg"] == before["china.jpg"], "what needs no change is copied byte for byte"
    assert (copies["china.txt"], copies["flower.txt"]) == (b"a tower", b"zwx cup")
    assert content(photos) == before and [path.name for path in made.folder.iterdir()] == ["7_zwx cup"]
    with pytest.raises(DatasetError, match="exists already"):
        prepare([photos], tmp_path / "set", "zwx cup", 7)
    shutil.copy(photos / "flower.jpg", photos / "more.jpg")
    with pytest.raises(DatasetError, match="7_zwx cup exists already"):  # beside it, all would be trained twice
        prepare([photos], tmp_path / "set", "zwx cup", 6)


def test_what_is_not_copied_is_told(photos: Path, tmp_path: Path) -> None:
    Image.new("L", (640, 427), 255).save(photos / "china-masklabel.png")
    (photos / "2024").mkdir()
    shutil.copy(photos / "flower.jpg", photos / "2024")
    told = prepare([photos], tmp_path / "set", "zwx", 7).lines()
    assert "Not copied: 1 mask (china-masklabel.png); make masks of the copies." in told
    assert any(line.startswith("Not copied: the images in sub-folders (2024);") for line in told)


def test_of_the_same_picture_that_with_a_caption_is_taken(photos: Path, tmp_path: Path) -> None:
    shutil.copy(photos / "flower.jpg", photos / "zz.jpg")
    (photos / "zz.txt").write_text("a flower")
    made = prepare([photos], tmp_path / "set", "zwx", 7)
    assert (made.target / "zz.txt").read_text() == "a flower" and [path.name for path in made.twins] == ["flower.jpg"]


def test_what_a_phone_makes_becomes_upright_srgb_of_a_usual_size(
    photos: Path, tmp_path: Path, pictures: dict[str, Image.Image]
) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    astronaut, coffee = pictures["skimage/astronaut.png"], pictures["skimage/coffee.png"]
    astronaut.crop((0, 0, 512, 300)).save(photos / "turned.jpg", exif=turned, quality=95)
    pictures["skimage/chelsea.png"].resize((3000, 2000)).save(photos / "large.png")
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    coffee.save(photos / "profile.png", icc_profile=lab)
    pictures["skimage/rocket.jpg"].convert("P").save(photos / "moving.gif")
    made = prepare([photos], tmp_path / "set", "zwx", 1)
    assert (made.images, made.changed) == (6, 3), "an sRGB profile changes nothing"
    with Image.open(made.target / "turned.png") as image:
        assert image.size == (300, 512) and not image.getexif().get(0x0112)
        expected, _ = read_image(photos / "turned.jpg")
        assert np.array_equal(np.asarray(image), np.asarray(expected)), "the pixels that training would see"
    with Image.open(made.target / "large.png") as image:
        assert (
            image.width * image.height <= 1.001 * preparing.LARGEST** 2
            and image.width / image.height == pytest.approx(1.5, abs=0.01)
        )
    assert (made.target / "profile.png").read_bytes() == (photos / "profile.png").read_bytes()
    assert (made.target / "moving.png").is_file()


def test_of_twins_the_largest_is_taken(photos: Path, tmp_path: Path, pictures: dict[str, Image.Image]) -> None:
    shutil.copy(photos / "china.jpg", photos / "again.jpg")
    ImageOps.mirror(pictures["sklearn/flower.jpg"]).resize((320, 214)).save(photos / "small.png")
    made = prepare([photos], tmp_path / "set", "zwx")
    assert made.images == 2 and {path.name for path in made.twins} in (
        {"again.jpg", "small.png"}, {"china.jpg", "small.png"}
    )  # fmt: skip
    assert any("Left out" in line and "2 images" in line for line in made.lines())


def test_broken_and_foreign_files_are_named_and_the_rest_goes_on(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "cut.jpg").write_bytes((photos / "china.jpg").read_bytes()[:9000])
    (photos / "empty.png").touch()
    for module in ("layout", "foreign"):
        monkeypatch.setattr(f"lora_trainer.dataset.{module}.image_endings", lambda: frozenset({".png", ".jpg"}))
    (photos / "IMG_1.HEIC").write_bytes(b"a photo")
    made = prepare([photos], tmp_path / "set", "zwx", 2)
    assert made.images == 2 and {one.path.name for one in made.skipped} == {"cut.jpg", "empty.png", "IMG_1.HEIC"}
    told = [line for line in made.lines() if line.startswith("Not copied")]
    assert len(told) == 3 and any("IMG_1.HEIC" in line and "pillow-heif" in line for line in told)
    for path in ("china.jpg", "flower.jpg"):
        (photos / path).unlink()
    with pytest.raises(DatasetError, match="can be copied"):
        prepare([photos], tmp_path / "other", "zwx", 2)
    assert not (tmp_path / "other").exists()


def test_photos_of_an_iphone(tmp_path: Path, pictures: dict[str, Image.Image]) -> None:
    assert ".heic" in image_endings()
    (tmp_path / "in").mkdir()
    pictures["skimage/coffee.png"].save(tmp_path / "in" / "IMG_1.HEIC", quality=90)
    made = prepare([tmp_path / "in"], tmp_path / "set", "zwx", 1)
    copy, _ = read_image(made.target / "IMG_1.png")
    assert np.abs(np.asarray(copy).astype(int) - np.asarray(pictures["skimage/coffee.png"])).mean() < 5


def test_a_full_disk_leaves_nothing_behind(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content(photos)
    real = preparing._copy

    def full(source: Path, target: Path) -> None:
        if source.name == "flower.jpg":
            raise FileError("Can't write it: No space left on device.")
        real(source, target)

    monkeypatch.setattr(preparing, "_copy", full)
    with pytest.raises(FileError, match="No space"):
        prepare([photos], tmp_path / "set", "zwx", 1)
    assert content(photos) == before and not list((tmp_path / "set").iterdir())


def test_names_that_collide_or_are_too_long(photos: Path, tmp_path: Path, pictures: dict[str, Image.Image]) -> None:
    pictures["skimage/coffee.png"].save(photos / "CHINA.png")
    pictures["skimage/rocket.jpg"].save(photos / ("n" * 200 + ".png"))
    pictures["skimage/chelsea.png"].save(photos / "cafe\u0301.png")
    made = prepare([photos], tmp_path / "set", "zwx", 1)
    names = {path.name for path in made.target.glob("*.[pj]*g")}
    assert names == {"CHINA.png", "china-2.jpg", "flower.jpg", "caf\u00e9.png", "n" * 100 + ".png"}


@pytest.mark.parametrize(
    ("images", "subject", "repeats"),
    [(15, "person", 10), (20, "style", 10), (40, "style", 5), (4, "object", 20), (2000, "concept", 1), (0, "", 20)],
)
def test_suggested_repeats(images: int, subject: str, repeats: int) -> None:
    assert suggested_repeats(images, subject) == repeats


def test_the_sum() -> None:
    assert steps_sum(15, 10, 10, 1) == "15 images × 10 repeats × 10 epochs ÷ batch size 1 = 1500 steps."
    assert steps_sum(15, 1, 2, 4).endswith("= 8 steps.")
    with pytest.raises(ConfigError, match="subject can't be 'cat'"):
        suggested_repeats(1, "cat")


@pytest.mark.parametrize(
    ("trigger", "repeats", "sentence"),
    [("", 10, "trigger word is missing"), ("a/b", 10, "/ can't be used"), ("..", 10, "begins or ends with"),
     ("con", 10, "Windows reserves"), ("x" * 230, 10, "too long"),
     ("x", 0, "Repeats"), ("x", "many", "Repeats"), ("x", "1001", "Repeats")],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, photos: Path, trigger: str, repeats: object, sentence: str) -> None:
    with pytest.raises(DatasetError, match=sentence):
        prepare([photos], tmp_path / "sets", trigger, repeats)
    assert not (tmp_path / "sets").exists()


def test_dropped_files_are_copied(tmp_path: Path, photos: Path) -> None:
    made = prepare([photos / "china.jpg", photos / "china.txt"], tmp_path / "set", "zwx", 3)
    assert (made.images, made.described) == (1, 1)
    assert free_folder(tmp_path, "set") == tmp_path / "set-2" and check_trigger(" a  b ") == "a b"
