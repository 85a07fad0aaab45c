"""Remedies: each does what it says, nothing is lost, and undo puts every byte back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from lora_trainer.config import RunConfig
from lora_trainer.dataset.changes import Journal
from lora_trainer.dataset.checks.check import Checked, check
from lora_trainer.dataset.prepare import prepare
from lora_trainer.dataset.remedies import Remedies, apply
from lora_trainer.errors import ConfigError, FileError

Fix = Callable[..., str]


def picture(seed: int, size: int = 300) -> Image.Image:
    """Soft shapes, each picture others."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    grain = np.random.default_rng(seed + 99).integers(0, 30, (size, size, 3), np.uint8)
    soft = np.asarray(Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC))
    return Image.fromarray((soft // 2 + 50 + grain).astype(np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "4_zwx cup"
    path.mkdir(parents=True)
    for number in range(6):
        picture(number).save(path / f"{number}.png")
        (path / f"{number}.txt").write_text(f"zwx cup, number {number}")
    return path


def looked(folder: Path, trigger: str = "") -> Checked:
    config = RunConfig().replace(resolution=(256, 256))
    return check(folder, config.dataset, config.caption, trigger=trigger)


@pytest.fixture
def fix(folder: Path, tmp_path: Path) -> Fix:
    def run(*kinds: str, trigger: str = "") -> str:
        changes = Remedies(folder.parent, trigger).changes(looked(folder.parent, trigger).findings, kinds)
        return apply(Journal(folder.parent, tmp_path / "out"), changes)

    return run


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def kinds(root: Path, trigger: str = "") -> set[str]:
    return {one.kind for one in looked(root, trigger).findings}


def test_everything_at_once_and_back_again(folder: Path, fix: Fix, tmp_path: Path) -> None:
    root = folder.parent
    shutil.copy(folder / "0.png", folder / "copy.png")
    (folder / "copy.txt").write_text("the same, again")
    ImageOps.mirror(picture(1)).resize((220, 220)).save(folder / "mirrored.png")
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "broken.txt").write_text("zwx cup, broken")
    (folder / "orphan.txt").write_text("nobody's")
    mask = Image.new("L", (300, 300), 0)
    mask.paste(255, (0, 0, 300, 100))
    mask.save(folder / "mask.png")
    (folder / "2.txt").write_text("a photo, zwx_cup, red")
    (folder / "3.txt").write_text("a cup\nanother line")
    (folder / "4.txt").write_bytes("zwx cup, caf\xe9".encode("cp1252"))
    (folder / "more").mkdir()
    picture(9).save(folder / "more" / "0.png")
    before = content(root)
    done = fix()
    assert "set aside" in done and "rewritten" in done
    assert not kinds(root) & {"duplicate", "near_duplicate", "unreadable", "orphan_captions", "mask", "trigger_missing",
                              "trigger_not_first", "caption_encoding", "nested_images"}  # fmt: skip
    assert {path.name for path in (root / "set-aside").iterdir()} == {
        "copy.png", "copy.txt", "mirrored.png", "broken.jpg", "broken.txt", "orphan.txt", "mask.png"}  # fmt: skip
    assert (folder / "2.txt").read_text() == "zwx_cup, a photo, red"
    assert (folder / "3.txt").read_text() == "zwx cup, a cup\nzwx cup, another line"
    assert (folder / "4.txt").read_text(encoding="utf-8") == "zwx cup, café"
    assert (folder / "0-2.png").is_file(), "a name that is taken gets a number"
    assert sorted(content(root).values(), key=len)[-9:] == sorted(before.values(), key=len)[-9:], "no image is lost"
    journal = Journal(root, tmp_path / "out")
    assert journal.undoable == done
    journal.undo()
    assert content(root) == before and not (root / "set-aside").exists()
    with pytest.raises(FileError, match="There is no remedy of this dataset to take back"):
        journal.undo()


def test_a_folder_gets_a_plausible_name_by_itself(folder: Path, fix: Fix, tmp_path: Path) -> None:
    dated = folder.rename(folder.with_name("20240131_zwx cup"))
    (dated / "0.txt").write_text("a cup")
    (folder.parent / "more").mkdir()
    picture(7).save(folder.parent / "more" / "a.png")
    before = content(folder.parent)
    fix()
    assert {path.name for path in folder.parent.iterdir()} == {"10_zwx cup", "more"}, "it may be left out on purpose"
    fix("ignored_folder")
    assert {path.name for path in folder.parent.iterdir()} == {"10_zwx cup", "10_more"}
    journal = Journal(folder.parent, tmp_path / "out")
    assert journal.undo().startswith("more → 10_more")
    assert journal.undo().startswith("20240131_zwx cup → 10_zwx cup")
    assert journal.undo() == "1 caption rewritten" and content(folder.parent) == before
    assert Remedies(dated).changes(looked(dated).findings, ["repeats"]) == [], "the dataset itself keeps its name"


def test_a_caption_stays_with_its_image_wherever_that_is_moved(folder: Path, fix: Fix) -> None:
    (folder / "0.txt").unlink()
    (folder / "more").mkdir()
    picture(9).save(folder / "more" / "0.png")
    Image.new("L", (300, 300), 255).save(folder / "more" / "0-masklabel.png")
    (folder / "more" / "0.txt").write_text("zwx cup, number nine")
    nine = (folder / "more" / "0.png").read_bytes()
    fix("nested_images")
    assert (folder / "0-2.png").read_bytes() == nine and (folder / "0-2.txt").read_text() == "zwx cup, number nine"
    assert (folder / "0-2-masklabel.png").is_file() and not (folder / "0.txt").exists(), "it is of another image"


def test_photos_behind_a_link_stay_where_they_are(folder: Path, fix: Fix, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    picture(9).save(tmp_path / "photos" / "nine.png")
    (folder / "link").symlink_to(tmp_path / "photos")
    assert "nested_images" in kinds(folder.parent) and fix() == ""
    (folder / "more").mkdir()
    picture(8).save(folder / "more" / "eight.png")
    fix()
    assert (folder / "eight.png").exists() and (tmp_path / "photos" / "nine.png").exists()


def test_no_folder_gets_another_trigger_word(folder: Path, fix: Fix) -> None:
    folder.rename(folder.with_name("10_zwx cup"))
    (folder.parent / "0_zwx cup").mkdir()
    picture(7).save(folder.parent / "0_zwx cup" / "a.png")
    assert "ignored_folder" in kinds(folder.parent) and fix("ignored_folder") == "", "it would get another word"


def test_what_is_a_matter_of_taste_is_done_only_when_it_is_named(folder: Path, fix: Fix) -> None:
    Image.new("RGB", (300, 300), (9, 9, 9)).save(folder / "dark.png")
    (folder / "dark.txt").write_text("zwx cup, at night")
    assert fix() == "" and "underexposed" in kinds(folder.parent)
    assert fix("underexposed") == "2 files set aside (dark.png, dark.txt)"
    found = {one.kind: one for one in looked(folder.parent).findings}
    assert "underexposed" not in found and "1 image set aside, in the folder set-aside" in found["set_aside"].reason
    with pytest.raises(ConfigError, match="There is no remedy for 'ugly'; there are some for duplicate"):
        fix("ugly")


def test_the_trigger_that_was_typed_is_put_first(folder: Path, fix: Fix) -> None:
    fix("trigger_missing", trigger="ohwx")
    assert {path.read_text() for path in folder.glob("*.txt")} == {f"ohwx, zwx cup, number {n}" for n in range(6)}


def test_a_caption_of_another_case_is_mended_too(folder: Path, fix: Fix) -> None:
    (folder / "0.txt").unlink()
    (folder / "0.TXT").write_text("a cup")
    fix("trigger_missing")
    assert (folder / "0.TXT").read_text() == "zwx cup, a cup" and not (folder / "0.txt").exists()


def test_borders_are_cut_off_copies_only(folder: Path, tmp_path: Path) -> None:
    for number in range(6):
        ImageOps.expand(picture(number, 400), (0, 60), "black").save(folder / f"{number}.png")
    assert Remedies(folder.parent).changes(looked(folder.parent).findings, ["borders"]) == [], "one's own files"
    made = prepare([folder], tmp_path / "set", "zwx", 1)
    before = content(made.folder)
    journal = Journal(made.folder, tmp_path / "out")
    assert (
        apply(journal, Remedies(made.folder).changes(looked(made.folder).findings, ["borders"])) == "6 images cropped"
    )
    assert "borders" not in kinds(made.folder)
    journal.undo()
    assert content(made.folder) == before


def test_what_was_changed_meanwhile_is_not_overwritten(folder: Path, fix: Fix, tmp_path: Path) -> None:
    (folder / "2.txt").write_text("red, zwx cup")
    fix("trigger_not_first")
    (folder / "2.txt").write_text("written by hand")
    with pytest.raises(FileError, match=r"This can't be taken back, as 2\.txt was changed meanwhile"):
        Journal(folder.parent, tmp_path / "out").undo()
    assert (folder / "2.txt").read_text() == "written by hand"


def test_half_of_it_is_taken_back_where_it_broke_off(
    folder: Path, fix: Fix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        shutil.copy(folder / "0.png", folder / f"copy{number}.png")
    before, real = content(folder.parent), Path.rename

    def failing(path: Path, target: Path) -> Path:
        if path.name == "copy2.png":
            raise PermissionError(13, "Permission denied")
        return real(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(FileError, match=r"copy2\.png → set-aside/copy2\.png: this can't be done \(Permission denied\)"):
        fix("duplicate")
    monkeypatch.undo()
    assert (folder.parent / "set-aside").is_dir()
    Journal(folder.parent, tmp_path / "out").undo()
    assert content(folder.parent) == before
