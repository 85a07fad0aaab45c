"""Metadata files of sd-scripts' fine-tuning become captions beside the images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.cli import main
from tests.dataset.conftest import Save

META: dict[str, Any] = {
    "C:\\img\\4_zork\\a.png": {"caption": "a zork in a park", "tags": "tree, sky", "train_resolution": [64, 64]},
    "/img/4_zork/B.v2": {"tags": "zork, red"},
    "/img/4_zork/same.png": {"caption": "this one"},
    "/img/else/same.png": {"caption": "another one"},
    "/img/else/gone.png": {"caption": "nobody"},
}


@pytest.fixture
def meta(root: Path, save: Save, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(root)
    for name, caption in (("a", None), ("b.v2", "mine"), ("same", None), ("left", None)):
        save(f"4_zork/{name}.png", caption=caption)
    path = root.parent / "meta_lat.json"
    path.write_text(json.dumps(META), encoding="utf-8")
    return path


def captions(root: Path) -> dict[str, str]:
    return {path.stem: path.read_text().strip() for path in (root / "4_zork").glob("*.txt")}


def test_captions_and_tags_are_written_beside_the_images_and_taken_back(
    root: Path, meta: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["caption", str(root), "--metadata", str(meta)]
    assert main(command) == 0
    assert "2 captions changed; --undo takes that back" in capsys.readouterr().out
    written = {"a": "a zork in a park, tree, sky", "same": "this one", "b.v2": "mine"}
    assert captions(root) == written, "sd-scripts joins both; what is there stays"
    assert main([*command, "--existing", "append"]) == 0
    assert captions(root)["b.v2"] == "mine, zork, red"
    assert main(["caption", str(root), "--undo"]) == 0
    assert captions(root) == written
    assert main(["caption", str(root), "--undo"]) == 0
    assert captions(root) == {"b.v2": "mine"}
    assert main([*command, "--existing", "replace"]) == 0
    assert captions(root) == {**written, "b.v2": "zork, red"}


def test_the_trigger_word_alone_is_no_caption_yet_and_stays_before_the_text(root: Path, meta: Path) -> None:
    for name, caption in (("a", "zork"), ("same", "Zork,")):
        (root / "4_zork" / f"{name}.txt").write_text(caption)  # as prepare leaves them
    assert main(["caption", str(root), "--metadata", str(meta)]) == 0
    assert captions(root) == {"a": "a zork in a park, tree, sky", "same": "Zork, this one", "b.v2": "mine"}


def test_folders_of_one_name_with_another_text_for_one_image_give_it_none(root: Path, meta: Path) -> None:
    more = {"/one/4_zork/left.png": {"caption": "one"}, "/two/4_zork/left.png": {"caption": "two"}}
    meta.write_text(json.dumps({**META, **more}), encoding="utf-8")
    assert main(["caption", str(root), "--metadata", str(meta)]) == 0
    assert "left" not in captions(root)


def test_a_file_of_other_images_is_told(root: Path, meta: Path, capsys: pytest.CaptureFixture[str]) -> None:
    meta.write_text(json.dumps({"/img/gone.png": {"caption": "nobody"}}), encoding="utf-8")
    assert main(["caption", str(root), "--metadata", str(meta)]) == 2
    assert "no text for the images in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"a.png": "a zork"}', "bad.json is no metadata file: 'a.png' has no caption or tags that are text"),
        ('{"a.png": {"caption": 3}}', "is no metadata file"),
        ("[1]", "bad.json"),
    ],
)
def test_other_files_are_refused(
    root: Path, meta: Path, content: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = root.parent / "bad.json"
    bad.write_text(content)
    assert main(["caption", str(root), "--metadata", str(bad)]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert captions(root) == {"b.v2": "mine"}
