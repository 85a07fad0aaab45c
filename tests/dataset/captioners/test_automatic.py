"""Automatic captions: what is written, what is left alone, and that all of it can be taken back."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from lora_trainer.cli import main
from lora_trainer.config import CaptionConfig
from lora_trainer.dataset.caption_sheet import CaptionSheet
from lora_trainer.dataset.captioners import automatic
from lora_trainer.dataset.captioners.automatic import AllDescribed, ImageDescribed, chosen, describe_all
from lora_trainer.dataset.captioners.wording import Wording, caption_of, combined
from lora_trainer.errors import ConfigError, NameTakenError
from lora_trainer.hosts.base import Described
from tests.support.captioners import make_wd14

TAGGED = Described(tags=(("1girl", 0.9), ("red hair", 0.8), ("anna", 0.7), ("park", 0.4)), names=frozenset({"anna"}))


class Says:
    """A captioner that says the colour of the first pixel."""

    def __init__(self) -> None:
        self.act = lambda: None

    def describe(self, image: Image.Image) -> Described:
        self.act()
        return Described(sentence=f"a woman with red hair before {image.getpixel((0, 0))[0]} walls")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "4_zwx"
    path.mkdir(parents=True)
    for number in range(4):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(path / f"{number}.png")
    (path / "0.txt").write_text("zwx, by hand")
    (path / "1.txt").write_text("ZWX")
    return path


@pytest.fixture
def sheet(folder: Path, tmp_path: Path) -> CaptionSheet:
    return CaptionSheet(folder.parent, CaptionConfig(), tmp_path / "out")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.txt"))}


def write(sheet: CaptionSheet, wording: Wording, overwrite: bool = False, model: Says | None = None) -> AllDescribed:
    *_, end = describe_all(sheet, chosen(sheet, wording, overwrite), model or Says(), wording)
    assert isinstance(end, AllDescribed)
    return end


@pytest.mark.parametrize(
    ("wording", "caption"),
    [(Wording(threshold=0.5), "zwx, 1girl, red hair, anna"),
     (Wording(threshold=0.3, subject="character", deny=("1GIRL",)), "zwx, park"),
     (Wording(threshold=0.95), "zwx"), (Wording(subject="object"), "zwx, 1girl, red hair, anna, park")],
)  # fmt: skip
def test_tags_are_filtered_and_the_trigger_comes_first(wording: Wording, caption: str) -> None:
    assert caption_of(TAGGED, wording, "zwx") == caption


def test_sentences_are_tidied_and_added_to_what_is_there() -> None:
    seen = Described(sentence="A woman with  red hair in a park, blurry.")
    assert caption_of(seen, Wording(subject="person", deny=("blurry",)), "zwx") == "zwx, A woman in a park"
    assert caption_of(seen, Wording(), "") == "A woman with red hair in a park, blurry"
    assert combined("a photo of zwx\nsmiling", "zwx, in a park, smiling", "zwx") == (
        "a photo of zwx, in a park, smiling\nzwx, smiling, in a park"
    )
    for wrong in ({"existing": "maybe"}, {"threshold": 1.5}):
        with pytest.raises(ConfigError):
            Wording(**wrong)


def test_captions_that_are_there_stay_and_the_rest_is_taken_back_at_once(sheet: CaptionSheet, folder: Path) -> None:
    first = content(folder)
    end = write(sheet, Wording(subject="person"))
    assert (end.written, end.skipped, end.stopped) == (3, 1, False)
    assert content(folder) == {
        "0.txt": b"zwx, by hand", "1.txt": b"zwx, a woman before 1 walls",
        "2.txt": b"zwx, a woman before 2 walls", "3.txt": b"zwx, a woman before 3 walls",
    }  # fmt: skip
    assert sheet.undoable == "automatic captions"
    sheet.undo()
    assert content(folder) == first and sheet.undoable == ""


def test_what_a_person_wrote_is_replaced_only_if_they_say_so(sheet: CaptionSheet, folder: Path) -> None:
    write(sheet, Wording())
    sheet.set("4_zwx/2.png", "zwx, edited", "zwx, a woman with red hair before 2 walls")
    with pytest.raises(NameTakenError, match=r"2 captions were written or edited by hand \(0.txt, 2.txt\)"):
        write(sheet, Wording(existing="replace"))
    assert content(folder)["2.txt"] == b"zwx, edited"
    (folder / "0.txt").unlink()
    (folder / "2.txt").unlink()
    assert write(sheet, Wording(existing="replace", trigger="new")).written == 4, "automatic ones need no leave"
    (folder / "3.txt").write_text("mine")
    assert write(sheet, Wording(existing="replace"), overwrite=True).written == 4
    assert content(folder)["3.txt"] == b"zwx, a woman with red hair before 3 walls"
    write(sheet, Wording(existing="append", trigger="zwx"))
    before = content(folder)
    assert write(sheet, Wording(existing="append")).written == 0 and content(folder) == before, "said only once"


def test_stopped_or_broken_off_what_was_described_is_written(
    sheet: CaptionSheet, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(automatic, "PORTION", 1)
    rows, looked = chosen(sheet, Wording(), False), list[str]()
    for event in describe_all(sheet, rows, Says(), Wording(), lambda: len(looked) == 2):
        if isinstance(event, ImageDescribed):
            looked.append(event.id)
    assert isinstance(event, AllDescribed) and event.stopped and event.written == 2
    assert sorted(content(folder)) == ["0.txt", "1.txt", "2.txt"]
    sheet.undo()
    assert sorted(content(folder)) == ["0.txt", "1.txt"], "portions are one change"
    monkeypatch.setattr(automatic, "PORTION", 20)
    model = Says()

    def breaks() -> None:
        if (folder / "3.png").exists():
            (folder / "3.png").unlink()  # the folder changes while it is read
            (folder / "2.txt").write_text("somebody else's")
            return
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        model.act = breaks
        list(describe_all(sheet, chosen(sheet, Wording(), False), model, Wording()))
    assert content(folder) == {
        "0.txt": b"zwx, by hand", "1.txt": b"zwx, a woman with red hair before 1 walls", "2.txt": b"somebody else's",
    }  # fmt: skip


def test_images_that_cannot_be_read_are_counted(sheet: CaptionSheet, folder: Path) -> None:
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:40])
    end = write(sheet, Wording())
    assert (end.written, end.skipped) == (2, 1) and "2.png" in end.unreadable[0]
    assert end.sentence == "2 captions written, 1 image left as it was, 1 image can't be read."


def test_the_command_writes_and_takes_back(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = content(folder)
    model = make_wd14(tmp_path / "wd14")
    common = ["caption", str(folder.parent), "--output", str(tmp_path / "out")]
    describe = [*common, "--captioner", "wd14", "--captioner-model", str(model)]
    assert main([*describe, "--subject", "character", "--deny", "blue"]) == 0
    assert "3 captions written, 1 image left as it was. --undo takes that back." in capsys.readouterr().out
    assert content(folder)["3.txt"] == b"zwx, 1girl", "0.35 is usual; hair and names belong to the character"
    assert main([*describe, "--existing", "replace"]) == 2
    assert "Replace them, too? (--overwrite replaces what is there)" in capsys.readouterr().err
    assert main([*describe, "--undo"]) == 2
    assert main([*common, "--undo"]) == 0 and content(folder) == first
    assert main([*common, "--append", "red hair"]) == 0 and main([*common, "--leave-out", "person"]) == 0
    assert content(folder)["0.txt"] == b"zwx, by hand"
