"""``prepare --crop``, ``crop`` and ``preview``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from lora_trainer.cli import DONE, WRONG_INPUT, main


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
    said("crop", "set", "a.jpg", "--box", "0.5,0,1,1")
    assert Image.open("set/2_zwx/a.png").size[0] in range(350, 420)
    assert said("crop", "set", "--suggest").startswith("1 image of 1 cropped to the subject")
    assert "give left, top, right and bottom" in said("crop", "set", "a.png", "--box", "1", status=WRONG_INPUT)
    assert "Which image?" in said("crop", "set", "--box", "0,0,1,1", status=WRONG_INPUT)
    assert "There is no image 'b.png'" in said("crop", "set", "b.png", "--undo", status=WRONG_INPUT)

    options = ("--set", "flip_aug=true", "resolution=128", "--uses", "3")
    told = said("preview", "set", "a.png", *options)
    assert "trained at 128x128 px (its bucket)." in told and told.count('"zwx"') == 3
    assert Image.open("output/previews/2_zwx-a.png").size == (3 * 128, 128)
    facts = json.loads(said("preview", "set", "2_zwx/a.png", *options, "--json"))
    assert facts["bucket"] == [128, 128] and [use["caption"] for use in facts["uses"]] == ["zwx"] * 3
