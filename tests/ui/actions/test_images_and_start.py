"""What the tab's buttons do, without a browser and without gradio: checks, copies, the start."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.config import OPTIONS
from lora_trainer.errors import HostBusyError, NameTakenError
from lora_trainer.ui.actions import images, start
from lora_trainer.ui.desk import Desk
from tests.support.tab import FakeJob, page


def test_check_counts_skips_and_suggests(desk: Desk, dataset: Path) -> None:
    answer = images.check(desk, page(desk, dataset=f'"{dataset}"'))
    suggested = '{"trigger": "zwx cat", "name": "zwx_cat"}'
    assert f'data-suggested="{escape(suggested)}"' in answer.html["check_answer"]
    assert answer.values == {}, "the page takes suggestions where nothing was typed: only it knows in time"
    assert 'data-images="3"' in answer.html["check_answer"]
    assert "broken.png" in answer.html["check_answer"] and "Skipped" in answer.html["check_answer"]
    assert "1 image without a caption file is trained with the folder" in answer.html["check_answer"]
    assert "1 of 2 captions don&#x27;t contain the folder&#x27;s words" in answer.html["check_answer"]
    assert "1 of 3 captions don&#x27;t contain the trigger word" not in answer.html["check_answer"], "said twice"
    other = images.check(desk, page(desk, dataset=str(dataset), trigger="mat"))
    assert "2 of 3 captions don&#x27;t contain the trigger word “mat”" in other.html["check_answer"]
    assert answer.html["check_answer"].count("data:image/jpeg;base64") == 3
    assert "150 in 10 epochs" in answer.html["plan"]


def test_check_leaves_what_the_user_wrote(desk: Desk, dataset: Path) -> None:
    answer = images.check(desk, page(desk, dataset=str(dataset), trigger="mine", name="my-name"))
    assert answer.values == {} and "“mine”" in answer.html["check_answer"]


@pytest.mark.parametrize(
    ("folder", "sentence"),
    [("", "Which images?"), ("/no/such/<folder>", "doesn&#x27;t exist"), ("photos", "holds images, but its name")],
)
def test_check_of_what_is_no_dataset(desk: Desk, photos: Path, folder: str, sentence: str) -> None:
    answer = images.check(desk, page(desk, dataset=str(photos) if folder == "photos" else folder))
    assert "lt-problem" in answer.html["check_answer"] and sentence in answer.html["check_answer"]
    assert "<folder>" not in answer.html["check_answer"]
    assert (f'data-photos="{photos}"' in answer.html["check_answer"]) is (folder == "photos"), "the way to copies"


def test_loose_photos_are_copied_and_stay_as_they_were(desk: Desk, job: FakeJob, photos: Path) -> None:
    before = {path.name: path.read_bytes() for path in photos.iterdir()}
    answer = images.copy(desk, page(desk, photos_folder=str(photos), trigger="zwx", repeats="7"), [])
    folder = job.output / "datasets" / "zwx"
    assert answer.values["dataset"] == str(folder)
    made = {path.name: path for path in (folder / "7_zwx").iterdir()}
    assert sorted(made) == [".prepared.json", "a-2.png", "a-2.txt", "a.jpg", "a.txt", "b.png", "b.txt"]
    assert made["b.txt"].read_text() == "a cat on a mat" and made["a.txt"].read_text() == "zwx"
    assert made["b.png"].read_bytes() == before["b.png"]
    assert {path.name: path.read_bytes() for path in photos.iterdir()} == before
    assert "3 images copied" in answer.html["check_answer"] and "untouched" in answer.html["check_answer"]
    second = images.copy(desk, page(desk, photos_folder=str(photos), trigger="zwx"), [])
    assert second.values["dataset"] == f"{folder}-2", "a folder that exists is never added to"


def test_copies_of_no_photos(desk: Desk, job: FakeJob, dataset: Path, photos: Path) -> None:
    (photos.parent / "nested").mkdir()
    (photos.parent / "nested" / "summer").symlink_to(photos)
    for folder, sentence in (
        ("", "Which photos? Drop them"),  # the training folder that is given isn't taken for photos
        ("/no/such", "doesn&#x27;t exist"),
        (f"{photos / 'b.png'}", "is a file; give the folder that it is in"),
        (f"{photos.parent / 'nested'}", "are in its sub-folders (summer); prepare one of those by itself"),
    ):
        answer = images.copy(desk, page(desk, dataset=str(dataset), photos_folder=folder, trigger="zwx"), [])
        assert sentence in answer.html["check_answer"], folder
    assert not (job.output / "datasets").exists()


def test_photos_that_cannot_be_opened_are_named(desk: Desk, photos: Path, monkeypatch: Any) -> None:
    for module in ("layout", "foreign"):
        monkeypatch.setattr(f"lora_trainer.dataset.{module}.image_endings", lambda: frozenset({".png", ".jpg"}))
    for name in ("IMG_1.HEIC", "IMG_2.avif"):
        (photos / name).write_bytes(b"a photo")
    (photos / "b-masklabel.png").write_bytes((photos / "b.png").read_bytes())
    answer = images.copy(desk, page(desk, photos_folder=str(photos), trigger="zwx"), [])
    assert "3 images copied" in answer.html["check_answer"]
    for name, ending in (("IMG_1.HEIC", "heic"), ("IMG_2.avif", "avif")):
        assert f"Not copied: {name} is a .{ending} file" in answer.html["check_answer"]
    assert answer.html["check_answer"].count("convert it to PNG or JPEG") == 2


def test_the_trigger_alone_is_no_caption(desk: Desk, photos: Path) -> None:
    (photos / "a.txt").write_text("ZWX\n")
    seen = page(desk, photos_folder=str(photos), trigger="zwx", options={"bucket_reso_steps": "8"})
    answer = images.copy(desk, seen, [])
    assert "1 had a caption, the others got the trigger word" in answer.html["check_answer"]
    assert "<b>1</b><span>with a caption</span>" in answer.html["check_answer"]
    assert "2 of 3 captions are the folder&#x27;s words and nothing else" in answer.html["check_answer"]


def test_a_file_that_has_not_arrived_is_not_copied(desk: Desk, job: FakeJob, photos: Path) -> None:
    (photos / "late.txt").touch()
    answer = images.copy(desk, page(desk, trigger="zwx"), [str(photos / "b.png"), str(photos / "late.txt")])
    assert "late.txt is empty" in answer.html["check_answer"]
    assert not (job.output / "datasets").exists()


@pytest.mark.parametrize(
    ("choices", "flags"),
    [((), (False, False)), (("resume",), (True, False)), (("overwrite",), (False, True)),
     (("resume", "overwrite"), (True, True))],
)  # fmt: skip
def test_start_sends_every_option_and_the_choice(
    desk: Desk, job: FakeJob, dataset: Path, choices: tuple[str, ...], flags: tuple[bool, bool]
) -> None:
    answer = start.start(
        desk, page(desk, dataset=str(dataset), name=" cat ", trigger="zwx", options={"network_dim": "4"}), *choices
    )
    assert answer.html["message"] == ""
    asked = job.asked[-1]
    assert (asked["name"], asked["dataset"], asked["trigger"], asked["test"]) == ("cat", str(dataset), "zwx", True)
    assert (asked["resume"], asked["overwrite"]) == flags
    assert asked["config"]["network_dim"] == 4 and set(asked["config"]) == {"version", *OPTIONS}


def test_what_is_there_already_is_asked_about(desk: Desk, job: FakeJob, dataset: Path) -> None:
    job.error = NameTakenError("A run named cat ended after step 5 of 9.", ("resume", "overwrite"))
    seen = page(desk, dataset=str(dataset), name="cat", options={"network_dim": "7"})
    first = start.start(desk, seen)
    assert "ended after step 5 of 9" in first.html["message"] and first.values == first.options == {}
    assert re.findall('data-choice="([^"]+)"', first.html["message"]) == ["resume", "overwrite", "name"]
    assert start.start(desk, seen).html["message"] != first.html["message"], "asked again, it shows again"
    job.error = None
    assert start.start(desk, seen, "resume").html["message"] == "" and job.asked[-1]["resume"]


def test_a_busy_job_is_told(desk: Desk, job: FakeJob) -> None:
    job.error = HostBusyError("first is being worked on.")
    answer = start.start(desk, page(desk, dataset="/d", name="x"))
    assert "first is being worked on." in answer.html["message"]


def test_the_kind_of_subject_says_what_it_takes(desk: Desk, dataset: Path) -> None:
    before = images.plan(desk, page(desk, dataset=str(dataset), subject="style"))
    assert "Images for a style: 20 to 50." in before.html["subject_plan"] and "check_answer" not in before.html
    assert images.plan(desk, page(desk, subject="")).html == {"subject_plan": ""}
    images.check(desk, page(desk, dataset=str(dataset)))
    after = images.plan(desk, page(desk, dataset=str(dataset), subject="object"))
    assert "10 to 30" in after.html["subject_plan"] and "There are only 3 images" in after.html["check_answer"]


@pytest.mark.parametrize(("chosen", "asked"), [("anything", {}), ("", {}), ("object", {"subject": "object"})])
def test_the_kind_of_subject_goes_to_the_test(
    desk: Desk, job: FakeJob, dataset: Path, chosen: str, asked: dict[str, str]
) -> None:
    start.start(desk, page(desk, dataset=str(dataset), name="cat", subject=chosen))
    assert job.asked[-1]["test_plan"] == asked
