"""What is said of images together, and of what training does with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageOps

from lora_trainer.config import RunConfig
from lora_trainer.dataset.checks.check import check
from lora_trainer.dataset.checks.outliers import oddness
from lora_trainer.dataset.findings import Finding
from tests.labelled.pictures import photographs
from tests.labelled.together import outliers

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
