"""``prepare --crop``, ``crop``, ``preview`` and ``check --fix``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from lora_trainer.cli import DONE, WRONG_INPUT, main
from tests.support.tiny_host import make_dataset

ROOT = Path(__file__).resolve().parents[2]


def test_copies_are_cropped_listed_and_previewed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    image = Image.new("RGB", (800, 600), "navy")
    ImageDraw.Draw(image).ellipse((500, 100, 700, 300), fill="orange")
    Path("photos").mkdir()
    image.save("photos/a.jpg")

    def said(*words: str, status: int = DONE) -> str:
        assert main(list(words)) == status
        found = capsys.readouterr()
        return found.err if status else found.out

    prepared = said("prepare", "photos", "set", "--trigger", "zwx", "--subject", "object", "--repeats", "2", "--crop")
    assert "1 of them was cropped to the subject; look at each" in prepared
    assert "2_zwx/a.png: cropped to 0." in said("crop", "set")
    assert (
        said("crop", "set", "--undo") == "1 image put back as before the crop.\n" and Path("set/2_zwx/a.jpg").exists()
    )
    assert said("crop", "set") == "2_zwx/a.jpg: whole\n"
    Path("set/2_zwx/own.jpg").write_bytes(Path("set/2_zwx/a.jpg").read_bytes())
    assert said("crop", "set", "--undo") == "0 images put back as before the crop.\n", (
        "one's own picture is no hindrance"
    )
    Path("set/2_zwx/own.jpg").unlink()
    said("crop", "set", "a.jpg", "--box", "0.5,0,1,1")
    assert Image.open("set/2_zwx/a.png").size[0] in range(350, 420)
    assert said("crop", "set", "--suggest").startswith("1 image of 1 cropped to the subject")
    assert "give left, top, right and bottom" in said("crop", "set", "a.png", "--box", "1", status=WRONG_INPUT)
    assert "Which image?" in said("crop", "set", "--box", "0,0,1,1", status=WRONG_INPUT)
    assert "rotated by 90 degrees; --degrees 270 takes that back" in said("rotate", "set", "a.png")
    assert said("rotate", "set", "a.png", "2_zwx/a.png", "--degrees", "270").count("rotated") == 1, "named twice"
    assert "There is no image 'b.png'" in said("crop", "set", "b.png", "--undo", status=WRONG_INPUT)

    options = ("--set", "flip_aug=true", "resolution=128", "--uses", "3")
    told = said("preview", "set", "a.png", *options)
    assert "trained at 128x128 px (its bucket)." in told and told.count('"zwx"') == 3
    assert Image.open("output/previews/2_zwx-a.png").size == (3 * 128, 128)
    facts = json.loads(said("preview", "set", "2_zwx/a.png", *options, "--json"))
    assert facts["bucket"] == [128, 128] and [use["caption"] for use in facts["uses"]] == ["zwx"] * 3


def test_check_puts_right_what_can_be_and_takes_it_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = make_dataset(tmp_path / "data") / "2_zork"
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
    command = ["check", "data", "--set", "resolution=64"]

    def said(*words: str, status: int = DONE) -> str:
        assert main([*command, *words]) == status
        found = capsys.readouterr()
        return found.err if status else found.out

    assert "add --yes to do that" in said("--fix", status=WRONG_INPUT)
    assert (folder / "copy.png").exists(), "nobody agreed"
    assert said("--fix", "mask", "--yes") == "There is nothing that could be put right here.\n"
    told = said("--fix", "--yes").splitlines()
    assert told[0] == "copy.png → set-aside/copy.png"
    assert told[1] == "Done: 1 file set aside (copy.png). 'check --undo' takes that back."
    assert not (folder / "copy.png").exists() and "1 image set aside, in the folder set-aside" in said()
    assert said("--undo") == "Taken back: 1 file set aside (copy.png).\n" and (folder / "copy.png").exists()
    assert "There is no remedy of this dataset to take back" in said("--undo", status=WRONG_INPUT)


def test_a_check_starts_without_the_seconds_that_a_host_takes_to_be_imported(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    code = (
        "import sys; from lora_trainer.cli import main; main(['check', 'data']); "
        "print([name for name in ('torch', 'transformers', 'diffusers') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "resolution" in done.stdout and done.stdout.splitlines()[-1] == "[]"
