"""Editing captions: what becomes of the text, what is written, and that every change can be taken back."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from lora_trainer.config import CaptionConfig
from lora_trainer.dataset.caption_edits import edited
from lora_trainer.dataset.caption_sheet import CaptionSheet, counted_tokens
from lora_trainer.dataset.undo import MOST
from lora_trainer.errors import ConfigError, FileError, LoraTrainerError
from lora_trainer.tokens import tokenise


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "4_zwx"
    path.mkdir(parents=True)
    for name in ("a", "b", "c", "d"):
        Image.new("RGB", (64, 64)).save(path / f"{name}.png")
    (path / "a.txt").write_bytes(b"zwx, red hair, smiling\r\n")
    (path / "b.caption").write_text("Red_Hair, in a park")
    (path / "c.txt").write_bytes("caf\u00e9, red hair".encode("cp1252"))
    return path


@pytest.fixture
def sheet(folder: Path, tmp_path: Path) -> CaptionSheet:
    return CaptionSheet(folder.parent, CaptionConfig(), tmp_path / "output")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix != ".png"}


def texts(sheet: CaptionSheet) -> list[str]:
    return [row.text for row in sheet.rows()]


@pytest.mark.parametrize(
    ("edit", "words", "instead", "before", "after"),
    [
        ("prefix", "zwx,", "", "a cat", "zwx, a cat"), ("prefix", "zwx", "", "ZWX, a cat", "ZWX, a cat"),
        ("prefix", "zwx", "", "", "zwx"), ("prefix", "zwx", "", "one\ntwo", "zwx, one\nzwx, two"),
        ("append", "photo", "", "a cat,", "a cat, photo"), ("append", "Photo", "", "photo, a cat", "photo, a cat"),
        ("append", "photo", "", "", "photo"),
        ("replace", "cat", "dog", "a cat, catty", "a dog, dogty"), ("replace", "cat", "", "a, cat, b", "a, b"),
        ("replace", "x", "y", "a ,b", "a ,b"), ("replace", "%s", "\\1", "50%s", "50\\1"),
        ("remove", "red hair", "", "a, Red_Hair, b", "a, b"), ("remove", "red", "", "red hair", "red hair"),
        ("first", "zwx", "", "a, ZWX, b", "ZWX, a, b"), ("first", "zwx", "", "a, b", "a, b"),
    ],
)  # fmt: skip
def test_edits(edit: str, words: str, instead: str, before: str, after: str) -> None:
    assert edited(before, edit, words, instead) == after
    if edit != "replace":
        assert edited(after, edit, words, instead) == after, "done twice it changes nothing more"


@pytest.mark.parametrize(("edit", "words"), [("shuffle", "x"), ("prefix", " "), ("replace", "")])
def test_edits_that_are_refused(edit: str, words: str) -> None:
    with pytest.raises(ConfigError):
        edited("a", edit, words)


def test_the_sheet_has_every_image(sheet: CaptionSheet, folder: Path) -> None:
    rows = sheet.rows()
    assert [row.id for row in rows] == [f"4_zwx/{name}.png" for name in "abcd"]
    assert texts(sheet) == ["zwx, red hair, smiling", "Red_Hair, in a park", "caf\u00e9, red hair", ""]
    assert rows[3].instead == "zwx" and rows[3].file == folder / "d.txt"
    assert sheet.tags(rows)[0] == ("red hair", 2) and ("zwx", 1) in sheet.tags(rows)
    assert sheet.image("4_zwx/b.png") == folder / "b.png"
    for wrong in ("4_zwx/../../x.png", "b.png", "/etc/passwd", ""):
        with pytest.raises(FileError):
            sheet.image(wrong)


def test_many_are_changed_and_taken_back_byte_for_byte(sheet: CaptionSheet, folder: Path) -> None:
    first = content(folder)
    assert len(sheet.edit("prefix", "zwx")) == 3, "one begins with it already"
    assert texts(sheet) == [
        "zwx, red hair, smiling", "zwx, Red_Hair, in a park", "zwx, caf\u00e9, red hair", "zwx",
    ]  # fmt: skip
    assert content(folder)["a.txt"] == first["a.txt"], "what doesn't change isn't written"
    second = content(folder)
    assert [row.id for row in sheet.edit("remove", "red hair", ids=["4_zwx/b.png"])] == ["4_zwx/b.png"]
    assert sheet.undoable == "“red hair” removed"
    assert [row.text for row in sheet.undo()] == ["zwx, Red_Hair, in a park"] and content(folder) == second
    assert sheet.undoable == "“zwx” before every caption"
    sheet.undo()
    assert content(folder) == first, "in the encoding they had, and what wasn't there is gone again"
    assert sheet.undoable == ""
    with pytest.raises(FileError, match="no change"):
        sheet.undo()


def test_a_caption_that_somebody_else_changed_is_not_overwritten(sheet: CaptionSheet, folder: Path) -> None:
    assert [row.text for row in sheet.set("4_zwx/d.png", " new one \n\n", "")] == ["new one"]
    assert (folder / "d.txt").read_text() == "new one"
    (folder / "d.txt").write_text("theirs")
    with pytest.raises(ConfigError, match="changed meanwhile"):
        sheet.set("4_zwx/d.png", "mine", "new one")
    assert (folder / "d.txt").read_text() == "theirs"
    assert sheet.edit("replace", "nowhere", "x") == [] and sheet.undoable == "a caption edited", "no empty step back"


def test_a_trigger_word_that_reads_like_what_belongs_to_the_subject_stays(folder: Path, tmp_path: Path) -> None:
    styled = folder.rename(folder.with_name("4_zwx_style"))
    sheet = CaptionSheet(folder.parent, CaptionConfig(), tmp_path / "output")
    (styled / "a.txt").write_text("zwx_style, a house, watercolor")
    (styled / "c.txt").write_text("a house in zwx style, oil painting style")
    sheet.edit("leave_out", "style")
    assert texts(sheet)[0] == "zwx_style, a house" and texts(sheet)[2] == "a house in zwx style"


def test_taking_back_overwrites_nothing_that_was_written_or_moved_since(sheet: CaptionSheet, folder: Path) -> None:
    sheet.edit("append", "hat", "")
    by_tool = content(folder)
    (folder / "a.txt").write_text("zwx, by hand")
    with pytest.raises(FileError, match="was changed, moved or deleted since"):
        sheet.undo()
    assert content(folder) == {**by_tool, "a.txt": b"zwx, by hand"}
    (folder / "a.txt").write_bytes(by_tool["a.txt"])
    renamed = folder.rename(folder.with_name("5_zwx"))
    with pytest.raises(FileError, match="moved"):
        sheet.undo()
    assert not folder.exists() and content(renamed) == by_tool
    renamed.rename(folder)
    assert len(sheet.undo()) == 4


def test_backups_are_many_but_not_without_end(sheet: CaptionSheet, folder: Path, tmp_path: Path) -> None:
    for number in range(MOST + 3):
        sheet.set("4_zwx/d.png", str(number), str(number - 1) if number else "")
    kept = list((tmp_path / "output" / "caption-backups").rglob("*.json"))
    assert len(kept) == MOST
    sheet.undo()
    assert (folder / "d.txt").read_text() == str(MOST + 1)
    max(kept[0].parent.glob("*.json")).write_text('{"what": "x", "files": [["!", 3]]}')
    with pytest.raises(LoraTrainerError, match="damaged"):
        sheet.undo()


def test_a_failed_write_can_be_taken_back(sheet: CaptionSheet, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = content(folder)
    real = Path.replace

    def full(self: Path, target: Path) -> Path:
        if Path(target).name == "c.txt":
            raise OSError(28, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(FileError, match="No space left"):
        sheet.edit("append", "photo")
    monkeypatch.undo()
    assert (folder / "c.txt").read_bytes() == first["c.txt"]
    sheet.undo()
    assert content(folder) == first


def test_tokens_and_what_is_cut() -> None:
    text = ", ".join(f"word{n}" for n in range(60))
    found = counted_tokens(f"short\n{text}", 75)
    assert found["tokens"] == len(tokenise(text)) > 75
    assert text.endswith(found["cut"]) and len(tokenise(text[: -len(found["cut"])])) == 75
    assert counted_tokens("", 75) == {"tokens": 0, "cut": ""}
