"""Captioners from a user's folder, with small random weights; what is said where something is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

from lora_trainer.dataset.captioners.kinds import KINDS, opened
from lora_trainer.errors import ConfigError, FileError, LoraTrainerError
from tests.support.captioners import make_blip, make_florence, make_wd14

BLUE = Image.new("RGB", (40, 20), (0, 0, 100))


def test_a_tagger_gives_tags_with_their_probabilities(tmp_path: Path) -> None:
    seen = opened("wd14", make_wd14(tmp_path / "wd14")).describe(BLUE)
    assert [name for name, _ in seen.tags] == ["1girl", "red hair", "some name", "blue", "^_^"], "no rating"
    assert seen.names == {"some name"} and seen.sentence == ""
    assert dict(seen.tags)["blue"] == pytest.approx((100 + 255) / 2 / 255, abs=0.02), "half of the square is white"
    red = opened("wd14", tmp_path / "wd14").describe(Image.new("RGB", (20, 20), (255, 0, 0)))
    assert "blue" not in dict(red.tags), "channels are BGR for the model"


def test_blip_gives_a_sentence_of_its_vocabulary(tmp_path: Path) -> None:
    model = opened("blip", make_blip(tmp_path / "blip"))
    first, again = model.describe(BLUE), model.describe(BLUE)
    assert first == again and first.sentence and not first.tags
    assert "[SEP]" not in first.sentence and "[CLS]" not in first.sentence


def test_florence_gives_a_sentence_or_says_what_it_needs(tmp_path: Path) -> None:
    import transformers

    folder = tmp_path / "florence"
    if not hasattr(transformers, "Florence2ForConditionalGeneration"):
        folder.mkdir()
        for names in KINDS["florence-2"].files:
            (folder / names[0]).write_text("{}")
        with pytest.raises(ConfigError, match="needs transformers 4"):
            opened("florence-2", folder)
        return
    assert "cat" in opened("florence-2", make_florence(folder)).describe(BLUE).sentence
    config = folder / "config.json"
    config.write_text(config.read_text().replace("{", '{"auto_map": {},', 1))
    with pytest.raises(FileError, match="a program of its own that isn't run"):
        opened("florence-2", folder)


@pytest.mark.parametrize(
    ("name", "files", "told"),
    [("wd14", {"model.onnx": "x"}, "has no selected_tags.csv; WD14 tagger needs model.onnx, selected_tags.csv"),
     ("wd14", {"model.onnx": "x", "selected_tags.csv": "name,category\n"}, "can't be opened as WD14 tagger"),
     ("blip", {}, "has no config.json, no preprocessor_config.json, no tokenizer.json or vocab.txt, no model.safe"),
     ("blip", {"config.json": "[", "preprocessor_config.json": "{}", "vocab.txt": "a", "model.safetensors": "x"},
      "can't be opened as BLIP"),
     ("deepbooru", {}, "is part of a WebUI"), ("llava", {}, "captioner can't be 'llava'")],
)  # fmt: skip
def test_what_is_missing_is_named(tmp_path: Path, name: str, files: dict[str, str], told: str) -> None:
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    with pytest.raises(LoraTrainerError, match=told):
        opened(name, tmp_path)


def test_a_folder_is_needed_and_so_is_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="needs the folder with its model"):
        opened("blip", None)
    with pytest.raises(FileError, match="doesn't exist"):
        opened("blip", tmp_path / "nowhere")
    make_wd14(tmp_path / "wd14")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match="pip install onnxruntime"):
        opened("wd14", tmp_path / "wd14")
