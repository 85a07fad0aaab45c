"""From a folder to findings and one sentence."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageOps

from lora_trainer.config import RunConfig
from lora_trainer.dataset.checks import looks as looking
from lora_trainer.dataset.checks.check import Checked, check
from lora_trainer.dataset.findings import Finding
from lora_trainer.errors import ConfigError
from tests.labelled.changes import defocused, exposed, letterboxed
from tests.labelled.pictures import photographs

Check = Callable[..., Checked]
OTHERS = (
    "sklearn/china.jpg",
    "skimage/chelsea.png",
    "skimage/astronaut.png",
    "skimage/rocket.jpg",
    "sklearn/flower.jpg",
)


@pytest.fixture(scope="module")
def pictures() -> dict[str, Image.Image]:
    known = photographs(None)
    return {name: ImageOps.fit(known[name], (300, 300)) for name in ("skimage/coffee.png", *OTHERS)}


@pytest.fixture
def folder(tmp_path: Path, pictures: dict[str, Image.Image]) -> Path:
    """Five good images with captions."""
    path = tmp_path / "data" / "4_zwx cup"
    path.mkdir(parents=True)
    for number, name in enumerate(OTHERS):
        pictures[name].save(path / f"{number}.png")
        (path / f"{number}.txt").write_text(f"zwx cup, number {number}, outside")
    return path


@pytest.fixture
def run(folder: Path) -> Check:
    def check_it(**more: object) -> Checked:
        about = {name: more.pop(name) for name in ("subject", "trigger", "output") if name in more}
        config = RunConfig().replace(resolution=(256, 256), **more)
        return check(folder.parent, config.dataset, config.caption, **about)  # type: ignore[arg-type]

    return check_it


def found(checked: Checked) -> dict[str, Finding]:
    assert len({one.kind for one in checked.findings}) == len(checked.findings), checked.findings
    return {one.kind: one for one in checked.findings}


def test_a_good_dataset_is_ready(run: Check) -> None:
    checked = run()
    assert (checked.readiness, checked.findings, checked.ready) == ("Ready.", (), True)
    assert checked.lines()[0] == "Ready." and "5 images" in checked.lines()[1]


def test_what_is_wrong_with_pixels_is_named_by_file(run: Check, folder: Path, pictures: dict[str, Image.Image]) -> None:
    coffee = pictures["skimage/coffee.png"]
    defocused(coffee, 6).save(folder / "blur.png")
    exposed(pictures["sklearn/flower.jpg"], -4).save(folder / "dark.png")
    letterboxed(ImageOps.mirror(pictures["skimage/chelsea.png"]).crop((0, 0, 150, 150)).resize((300, 300)), 0.2).save(
        folder / "border.png"
    )
    coffee.crop((150, 150, 240, 240)).save(folder / "small.jpg", quality=10)
    Image.new("L", (300, 300), 0).save(folder / "mask.png")
    (folder / "broken.png").write_bytes(b"no picture")
    for name in ("blur", "dark", "border", "small", "mask"):
        (folder / f"{name}.txt").write_text("zwx cup, another one")
    checked = run()
    kinds = found(checked)
    for kind, name in (("underexposed", "dark.png"), ("borders", "border.png"), ("too_small", "small.jpg"),
                       ("jpeg", "small.jpg"), ("mask", "mask.png"), ("unreadable", "broken.png")):  # fmt: skip
        assert [path.name for path in kinds[kind].files] == [name], kind
        assert kinds[kind].severity == "warning" and kinds[kind].remedy
    assert "blur.png" in [path.name for path in kinds["blur"].files]
    number = len([one for one in checked.findings if one.severity == "warning"])
    assert checked.readiness == f"Ready; {('seven', 'eight', 'nine')[number - 7]} things would make it better."
    assert checked.to_dict()["findings"][0]["files"] == [str(path) for path in checked.findings[0].files]


def test_the_same_image_again(run: Check, folder: Path, pictures: dict[str, Image.Image]) -> None:
    shutil.copy(folder / "0.png", folder / "copy.png")
    china = pictures["sklearn/china.jpg"]
    ImageOps.mirror(china).resize((200, 200)).save(folder / "mirrored.jpg")
    pictures["skimage/rocket.jpg"].crop((20, 30, 290, 280)).save(folder / "part.png")
    for name in ("copy", "mirrored", "part"):
        (folder / f"{name}.txt").write_text("zwx cup, once more")
    kinds = found(run())
    assert {path.name for path in kinds["duplicate"].files} in ({"copy.png"}, {"0.png"})
    assert {path.name for path in kinds["near_duplicate"].files} == {"mirrored.jpg", "part.png"}, "the larger one stays"


@pytest.mark.parametrize(
    ("subject", "severity", "words"),
    [
        ("person", "warning", "5 images are few for a person"),
        ("", None, ""),
        ("object", "warning", "10 to 30 are usual"),
    ],
)
def test_how_many_images_a_subject_needs(run: Check, subject: str, severity: str | None, words: str) -> None:
    kinds = found(run(subject=subject))
    assert (kinds["number"].severity if "number" in kinds else None) == severity
    assert not severity or words in str(kinds["number"])


def test_too_few_images_are_not_ready(run: Check, folder: Path) -> None:
    for number in range(1, 5):
        (folder / f"{number}.png").unlink()
        (folder / f"{number}.txt").unlink()
    checked = run()
    assert checked.readiness.startswith("Not yet: There is only 1 image") and not checked.ready
    assert checked.findings[0].kind == "number", "what matters most comes first"
    with pytest.raises(ConfigError, match=r"subject can't be 'cat'.*person"):
        run(subject="cat")


def test_captions(run: Check, folder: Path) -> None:
    texts = ("zwx cup", "red_hair, zwx cup", "zwx cup, red hair", "zwx cup, " + "long " * 80, "a dog")
    for number, text in enumerate(texts):
        (folder / f"{number}.txt").write_text(text)
    (folder / "orphan.txt").write_text("nobody's")
    kinds = found(run())
    assert [path.name for path in kinds["caption_bare"].files] == ["0.png"]
    assert [path.name for path in kinds["trigger_not_first"].files] == ["1.png"]
    assert [path.name for path in kinds["trigger_missing"].files] == ["4.png"]
    assert [path.name for path in kinds["caption_overlong"].files] == ["3.png"]
    assert 'such as "long long long' in kinds["caption_overlong"].reason, "the part that is cut is shown"
    assert [path.name for path in kinds["orphan_captions"].files] == ["orphan.txt"]
    assert "'red_hair' and 'red hair'" in kinds["caption_spelling"].reason
    other = run(trigger="ohwx")
    assert not other.ready and "5 of 5 captions don't contain the trigger word “ohwx”" in other.readiness


def test_a_date_for_repeats_is_not_ready(run: Check, folder: Path) -> None:
    folder.rename(folder.with_name("20240131_zwx cup"))
    assert run().readiness.startswith("Not yet: 20240131_zwx cup repeats each of its images 20240131 times")


def test_what_was_seen_is_remembered_by_content(
    run: Check, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Path] = []
    real = looking.take_look

    def counted(path: Path, content: str, area: int) -> looking.Look:
        taken.append(path)
        return real(path, content, area)

    monkeypatch.setattr(looking, "take_look", counted)
    output = tmp_path / "output"
    first = run(output=output)
    assert len(taken) == 5
    (folder / "0.png").rename(folder / "moved.png")
    (folder / "0.txt").rename(folder / "moved.txt")
    second = run(output=output)
    assert len(taken) == 5 and second.findings == first.findings, "the same content under another name is known"
    Image.new("RGB", (300, 300), "red").save(folder / "1.png")
    run(output=output)
    assert [path.name for path in taken[5:]] == ["1.png"]
    run(output=output, flip_aug=True)
    assert len(taken) == 6
    run(output=tmp_path / "elsewhere")
    assert len(taken) == 11


def test_what_is_remembered_does_not_grow_without_end(
    run: Check, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "KEPT", {"files": 1, "looks": 1, "groups": 1, "subjects": 0})
    for number in range(9):
        Image.new("RGB", (300, 300), (20 * number, 90, 90)).save(folder / "0.png")
        run(output=tmp_path)
    with closing(sqlite3.connect(tmp_path / looking.FILE)) as memory:
        rows = {table: memory.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in looking.KEPT}
        contents = {content for (content,) in memory.execute("SELECT content FROM looks")}
    assert rows["looks"] == rows["groups"] == 6 and rows["files"] <= 6, rows
    with looking.Looks(None, (256, 256)) as looks:
        status = (folder / "0.png").stat()
        looks.size(folder / "0.png", status.st_size, status.st_mtime_ns)
        assert looks.of(folder / "0.png").content in contents, "what was seen last stays"


def test_a_memory_that_is_damaged_or_cannot_be_written_only_costs_time(run: Check, tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.mkdir()
    (output / looking.FILE).write_bytes(b"this is no database, and longer than its header has to be" * 20)
    assert run(output=output).readiness == "Ready."
    assert (output / looking.FILE).read_bytes().startswith(b"SQLite")
    file = tmp_path / "file"
    file.write_text("in the way")
    assert run(output=file / "below").readiness == "Ready."
    assert run().findings == ()


@pytest.mark.parametrize("text", ["{}", "[1]", "null", "no JSON"])
def test_rows_that_say_nothing_are_looked_at_again(run: Check, folder: Path, tmp_path: Path, text: str) -> None:
    columns = (("looks", "facts"), ("groups", "found"), ("subjects", "box"))

    def seen() -> tuple[Any, Any]:
        found, image = run(output=tmp_path), folder / "0.png"
        with looking.Looks(tmp_path / looking.FILE, (256, 256)) as looks:
            looks.size(image, image.stat().st_size, image.stat().st_mtime_ns)
            return found, looks.subject(image)

    first = seen()
    with closing(sqlite3.connect(tmp_path / looking.FILE)) as memory:
        for table, column in columns:
            memory.execute(f"UPDATE {table} SET {column} = ?", (text,))
        memory.commit()
    assert seen() == first
    with closing(sqlite3.connect(tmp_path / looking.FILE)) as memory:
        for table, column in columns:
            rows = memory.execute(f"SELECT {column} FROM {table}").fetchall()
            assert rows and (text,) not in rows, f"{table} are remembered anew"


def test_it_is_told_before_a_training_where_there_is_something_to_tell(tmp_path: Path) -> None:
    from lora_trainer.training.events import Event, Notice
    from tests.support.runs import of
    from tests.support.runs import run as train

    def told(events: list[Event]) -> list[str]:
        return [event.text for event in of(events, Notice) if "Check of the images" in event.text]

    _, events = train(tmp_path / "fine", max_train_steps=1)
    assert told(events) == []
    first = next((tmp_path / "fine/data").rglob("*.txt"))
    first.unlink()
    _, events = train(tmp_path / "fine", "other", max_train_steps=1)
    assert len(told(events)) == 1 and told(events)[0].startswith("Check of the images: ")
