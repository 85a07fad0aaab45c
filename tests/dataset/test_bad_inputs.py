"""Bad inputs: the finding names the file, the originals stay as they were, the rest goes on."""

from __future__ import annotations

import os
import struct
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageFile

from lora_trainer.config import CaptionConfig, DatasetConfig
from lora_trainer.dataset import decode
from lora_trainer.dataset.buckets import Size
from lora_trainer.dataset.caption_sheet import CaptionSheet
from lora_trainer.dataset.checks.check import Checked, check
from lora_trainer.dataset.folders import scan
from lora_trainer.dataset.prepare import prepare
from lora_trainer.errors import DatasetError, FileError
from lora_trainer.files import write_text
from lora_trainer.ui.views import small_jpeg


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "2_zwx"
    path.mkdir(parents=True)
    for number in range(3):
        picture(path / f"{number}.png", number)
        (path / f"{number}.txt").write_text(f"zwx, thing {number}")
    return path


def picture(path: Path, number: int) -> None:
    image = Image.effect_noise((64, 64), 60).convert("RGB")
    image.paste((80 * number, 90, 10), (8 * number, 0, 8 * number + 30, 40))
    image.save(path)


def looked(folder: Path, **config: Any) -> Checked:
    return check(folder.parent, DatasetConfig(resolution=(64, 64), min_bucket_reso=64, **config), CaptionConfig())


def told(found: Checked, kind: str) -> str:
    return str(next(one for one in found.findings if one.kind == kind))


def png(path: Path, width: int, height: int) -> None:
    """A PNG that claims to have so many pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head, data = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0), zlib.compress(bytes(1000))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b""))


def test_files_that_are_no_images_are_named_and_the_rest_goes_on(folder: Path, tmp_path: Path) -> None:
    (folder / "zero.png").write_bytes(b"")
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:200])
    (folder / "text.jpg").write_text("I am no picture")
    (folder / "1.png").rename(folder / "1.jpg")  # mislabelled, but an image
    png(folder / "bomb.png", 60000, 60000)
    (folder / "self.png").symlink_to("self.png")
    (folder / "loop").symlink_to(folder)
    (folder.parent / "self").symlink_to("self")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    found = looked(folder)
    reasons = {one.path.name: one.reason for one in found.dataset.skipped}
    assert sorted(reasons) == ["bomb.png", "cut.png", "self.png", "text.jpg", "zero.png"]
    assert "larger than the 300 megapixels that are read here" in reasons["bomb.png"]
    assert "5 files can't be used" in told(found, "unreadable") and len(found.dataset.items) == 3
    made = prepare([folder], tmp_path / "made", "zwx", 1)
    assert made.images == 3 and {one.path.name for one in made.skipped} == set(reasons)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert small_jpeg(folder / "bomb.png", 64) == b"" and small_jpeg(folder / "1.jpg", 64)


def test_an_honest_large_picture_is_read_and_pillows_switches_are_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (200, 100), (90, 10, 10)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow's own limit, which it would be far beyond
    monkeypatch.setattr(decode, "LARGE", 1000)
    assert decode.read_image(tmp_path / "large.png")[0].size == (200, 100)
    monkeypatch.setattr(decode, "MOST_PIXELS", 10_000)
    with pytest.raises(DatasetError, match=r"large\.png is larger than"):
        decode.read_image(tmp_path / "large.png")
    assert Image.MAX_IMAGE_PIXELS == 100 and not ImageFile.LOAD_TRUNCATED_IMAGES


def test_of_animations_the_first_frame_is_used_and_that_is_told(folder: Path) -> None:
    frames = [Image.new("RGB", (64, 64), (60 * n, 0, 90)) for n in range(3)]
    frames[2].save(folder / "moving.gif", save_all=True, append_images=frames[:2])
    frames[0].save(folder / "still.gif")
    assert "Of 1 animation only the first frame is used (moving.gif)" in told(looked(folder), "animation")
    assert decode.read_image(folder / "moving.gif")[0].getpixel((0, 0)) == (120, 0, 90)


def test_names_in_any_unicode_form_case_and_length_find_their_captions(folder: Path, tmp_path: Path) -> None:
    apart, together = unicodedata.normalize("NFD", "café"), unicodedata.normalize("NFC", "café")
    picture(folder / f"{apart}.png", 4)
    (folder / f"{together}.txt").write_text("zwx, a café")
    picture(folder / "Case.png", 5)
    picture(folder / "case.png", 6)
    (folder / "Case.txt").write_text("zwx, upper")
    (folder / "case.txt").write_text("zwx, lower")
    long = "l" * 248
    picture(folder / f"{long}.png", 7)
    found = looked(folder)
    captions = {item.path.stem: item.captions[0] for item in found.dataset.items}
    assert captions[apart] == "zwx, a café" and (captions["Case"], captions["case"]) == ("zwx, upper", "zwx, lower")
    assert not [one for one in found.findings if one.kind == "orphan_captions"]
    sheet = CaptionSheet(folder.parent, CaptionConfig(), tmp_path / "out")
    assert [row.text for row in sheet.set(f"2_zwx/{long}.png", "zwx, long", "")] == ["zwx, long"]
    sheet.edit("append", "photo")
    assert (folder / f"{together}.txt").read_text() == "zwx, a café, photo" and not (folder / f"{apart}.txt").exists()
    made = prepare([folder], tmp_path / "made", "zwx", 1)
    stems = sorted(path.stem.lower() for path in made.target.glob("*.txt"))
    assert len(stems) == len(set(stems)) == 7, "they may go to a disk that knows no case"


def test_two_images_that_share_a_caption_are_told(folder: Path) -> None:
    picture(folder / "0.bmp", 5)
    assert "2 images share a caption file with another one of the same name (0.bmp, 0.png)" in told(
        looked(folder), "caption_shared"
    )


def forbidden(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, of: Path) -> None:
    """As where permissions don't allow it; root may read everything."""
    real: Callable[..., Any] = getattr(owner, name)

    def refusing(path: Any, *arguments: Any) -> Any:
        if Path(path) == of:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments)

    monkeypatch.setattr(owner, name, refusing)


def test_what_may_not_be_read_is_named_and_the_rest_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = folder.parent / "3_other"
    other.mkdir()
    forbidden(monkeypatch, os, "scandir", other)
    forbidden(monkeypatch, Path, "read_bytes", folder / "1.txt")
    found = looked(folder)
    assert "3_other can't be read (Permission denied); check its permissions." in told(found, "unreadable_folder")
    assert [item.path.name for item in found.dataset.items] == ["0.png", "2.png"]
    assert found.dataset.skipped[0].reason.startswith("has a caption, 1.txt, that can't be read (Permission denied)")
    forbidden(monkeypatch, os, "scandir", folder)
    with pytest.raises(DatasetError, match=r"can't be read \(Permission denied\); check its permissions"):
        looked(folder)


def test_a_folder_that_changes_while_it_is_read(folder: Path, tmp_path: Path) -> None:
    def vanishing(path: Path, file_size: int, changed_ns: int) -> Size:
        if path.name == "2.png":
            path.unlink()
        return decode.probe(path, file_size, changed_ns)

    found = scan(folder.parent, DatasetConfig(resolution=(64, 64)), CaptionConfig(), size_of=vanishing)
    assert len(found.items) == 2 and "No such file" in found.skipped[0].reason

    def gone(done: int, total: int, what: str) -> None:
        if what == "Copying photos":
            (folder / "1.png").unlink(missing_ok=True)

    with pytest.raises(FileError, match=r"1\.png isn't there any more"):
        prepare([folder], tmp_path / "made", "zwx", 1, progress=gone)
    assert not list((tmp_path / "made").iterdir()), "all copies or none"


def test_a_full_disk_leaves_no_half_and_keeps_what_was(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, *arguments: Any, **values: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(FileError, match="No space left on device"):
        write_text(folder / "0.txt", "new")
    sheet = CaptionSheet(folder.parent, CaptionConfig(), tmp_path / "out")
    with pytest.raises(FileError, match="No space left on device"):
        sheet.edit("append", "photo")
    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(FileError, match="No space left on device"):
        prepare([folder], tmp_path / "made", "zwx", 1)
    assert (folder / "0.txt").read_text() == "zwx, thing 0" and len(list(folder.iterdir())) == 6
    assert not list((tmp_path / "made").iterdir())


def test_a_dataset_inside_itself(folder: Path) -> None:
    inner = folder / "2_zwx"
    inner.mkdir()
    picture(inner / "in.png", 9)
    (folder.parent / "2_again").symlink_to(folder.parent)
    found = looked(folder)
    assert len(found.dataset.items) == 3 and "images in its sub-folders (2_zwx)" in told(found, "nested_images")
    assert "2_again: none of its images can be used" in told(found, "nothing_usable")
