"""What is said of images together, and of what training does with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from lora_trainer.config import RunConfig
from lora_trainer.dataset.checks import variety
from lora_trainer.dataset.checks.check import check
from lora_trainer.dataset.checks.marks import common, marks
from lora_trainer.dataset.checks.outliers import oddness
from lora_trainer.dataset.findings import Finding
from tests.labelled.backgrounds import backgrounds
from tests.labelled.pictures import photographs
from tests.labelled.together import outliers
from tests.labelled.watermarks import Mark, watermarks

Found = Callable[..., dict[str, Finding]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten blue images of 300x200 px with a ball in the middle, each with a caption."""
    path = tmp_path / "data" / "4_zwx"
    path.mkdir(parents=True)
    for number in range(10):
        save(path / f"{number}.png", 110 + 5 * number)
        (path / f"{number}.txt").write_text(f"zwx, number {number}, in a park")
    return path


def save(path: Path, left: int) -> None:
    image = Image.new("RGB", (300, 200), (40, 60, 140))
    ImageDraw.Draw(image).ellipse((left, 60, left + 80, 140), fill="orange")
    image.save(path)


@pytest.fixture
def found(folder: Path) -> Found:
    def run(subject: str = "", **options: object) -> dict[str, Finding]:
        config = RunConfig().replace(resolution=(128, 128), **options)
        return {one.kind: one for one in check(folder.parent, config.dataset, config.caption, subject).findings}

    return run


def test_mirrored_faces_and_lettering(folder: Path, found: Found) -> None:
    assert not {"flip", "flip_text"} & {*found("person")}
    (folder / "3.txt").write_text("zwx, a sign, in a park")
    kinds = found("person", flip_aug=True)
    assert kinds["flip"].severity == "warning" and kinds["flip"].remedy == "switch flip_aug off"
    assert [path.name for path in kinds["flip_text"].files] == ["3.png"]
    assert "flip" not in found("object", flip_aug=True)


def test_what_never_changes(folder: Path, found: Found) -> None:
    assert "Nearly every caption says 'in a park'" in found()["unchanging"].reason
    (folder / "0.txt").write_text("zwx, number 0")
    assert "unchanging" in found(), "nine of ten"
    (folder / "1.txt").write_text("zwx, number 1")
    assert "unchanging" not in found()


def test_screenshots_by_their_names(folder: Path, found: Found) -> None:
    (folder / "0.png").rename(folder / "Screenshot_2024-01-31.png")
    (folder / "1.png").rename(folder / "Bildschirmfoto 1.png")
    assert len(found()["screenshot"].files) == 2


def test_a_subject_that_the_bucket_cuts_off(folder: Path, found: Found) -> None:
    save(folder / "5.png", 215)
    assert "subject_cut" not in found(bucket_reso_steps=16), "a bucket of its shape"
    cut = found(enable_bucket=False)["subject_cut"]
    assert [path.name for path in cut.files] == ["5.png"] and cut.severity == "info"
    assert "1 image probably loses a part of the subject" in cut.reason


def test_outliers_among_photographs_that_nothing_was_chosen_on() -> None:
    known = photographs(None)
    few = {name: ImageOps.contain(known[name], (160, 160))
           for name in ("skimage/coffee.png", "skimage/brick.png", "sklearn/china.jpg", "skimage/chelsea.png",
                        "sklearn/flower.jpg")}  # fmt: skip
    count = outliers(few)
    assert count.precision >= 0.9 and count.recall >= 0.6, count.faults
    assert oddness([b"\0" * 4608] * 7) == [0.0] * 7, "too few to say what is usual"
    assert max(oddness([bytes([n]) * 4608 for n in range(9)])) < 10


def test_images_before_one_background(folder: Path, found: Found) -> None:
    same = found("object")["variety"]
    assert (len(same.files), same.severity) == (10, "info")
    assert same.reason.startswith("10 of 10 images have a background of nearly the same colours (0.png, 1.png")
    assert same.reason.endswith("which is learned as part of the object") and "other places" in same.remedy
    for number, colour in enumerate(("red", "white", "green")):
        image = Image.new("RGB", (300, 200), colour)
        image.paste(Image.open(folder / f"{number}.png").crop((100, 50, 200, 150)), (100, 50))
        image.save(folder / f"{number}.png")
    assert "variety" not in found("object"), "seven of ten"
    for number in (7, 8, 9):
        (folder / f"{number}.png").unlink()
    assert "variety" not in found("object"), "too few to say that"


def test_backgrounds_of_photographs_in_colour_and_in_black_and_white() -> None:
    known = photographs(None)
    few = {name: ImageOps.contain(known[name], (160, 160))
           for name in ("skimage/coffee.png", "skimage/brick.png", "sklearn/china.jpg", "skimage/chelsea.png",
                        "skimage/rocket.jpg", "skimage/grass.png")}  # fmt: skip
    count = backgrounds(few, 1)
    assert count.cases == 28 and count.precision >= 0.9 and count.recall >= 0.8, count.faults


def test_a_histogram_counts_a_colour_for_the_bins_beside_it() -> None:
    between = np.array([[256 / 6], [128.0], [128.0]])  # in the middle of two bins, three times
    found = variety.histogram(between).reshape(variety.LEVELS) ** 2
    assert np.argwhere(found > 0.01).tolist() == [[x, y, z] for x in (0, 1) for y in (5, 6) for z in (5, 6)]
    assert found.sum() == pytest.approx(1) and found.max() == pytest.approx(1 / 8)
    black = variety.histogram(np.zeros((3, 4))) ** 2
    assert black[0] == pytest.approx(1), "beyond the last bin nothing is lost"
    blank = [bytes([200]) * 4096 + bytes([128]) * 512] * 9
    assert max(variety.apart_from_usual(blank)) < 0.01 and min(variety.apart_from_usual(blank[:7])) > 1


def test_watermarks_on_photographs_that_nothing_was_chosen_on() -> None:
    known = photographs(None)
    few = {name: ImageOps.contain(known[name], (400, 400))
           for name in ("skimage/coffee.png", "sklearn/china.jpg")}  # fmt: skip
    count = watermarks(few, mixed=3)
    assert count.cases == 2 * (3 + 2 + 2 * 2) and count.precision == 1 and count.recall >= 0.4, count.faults


def test_images_with_the_same_mark_are_named_and_where_it_is(folder: Path, found: Found) -> None:
    china = photographs(None)["sklearn/china.jpg"]
    rng = np.random.default_rng(0)
    mark = Mark("SAMPLE", 0.35, 1, "white", (0.96, 0.95))
    for number in range(13):
        left, top = rng.integers(0, 300), rng.integers(0, 200)
        image = china.crop((left, top, left + 300, top + 200))
        (mark.over(image) if number != 4 else image).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"zwx, number {number}")
    marked = found()["watermark"]
    assert [path.name for path in marked.files] == [f"{number}.png" for number in sorted({*range(13)} - {4}, key=str)]
    assert marked.severity == "warning"
    assert marked.reason.startswith("12 of 13 images have the same marks at the bottom right (0.png")
    for number in range(2):
        (folder / f"{number}.png").unlink()
    assert "watermark" not in found(), "too few to say that"


def test_what_is_the_same_in_most_of_the_picture_is_no_mark() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (128, 128), dtype=np.uint8)
    assert common([marks(Image.fromarray(noise))] * 12) == (None, [0.0] * 12)
    corner = [np.random.default_rng(n).integers(0, 256, (128, 128), dtype=np.uint8) for n in range(12)]
    for one in corner:
        one[100:110, 10:40] = noise[100:110, 10:40]
    box, shares = common([marks(Image.fromarray(one)) for one in corner])
    assert box == pytest.approx((10 / 128, 100 / 128, 40 / 128, 110 / 128), abs=3 / 128) and min(shares) > 0.7
