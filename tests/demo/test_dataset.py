"""The demo's dataset."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from lora_trainer.demo import dataset, world
from tests.demo import world_reader


def test_layout_and_captions(tmp_path: Path) -> None:
    assert dataset.write_dataset(tmp_path) == tmp_path
    folder = tmp_path / "10_zorbo"
    pictures = sorted(folder.glob("*.png"))
    assert len(pictures) == dataset.COUNT == len(list(folder.glob("*.txt")))
    for picture in pictures:
        text = picture.with_suffix(".txt").read_text("utf-8").strip()
        got = world_reader.read(Image.open(picture))
        assert got.shape == world_reader.CONCEPT
        assert text == world.caption(dataset.TRIGGER, got.colour, got.position, got.background)


def test_same_seed_same_files(tmp_path: Path) -> None:
    first, second = (dataset.write_dataset(tmp_path / name) / dataset.FOLDER for name in "ab")
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()


def test_other_seed_other_scenes() -> None:
    assert dataset.scenes(0) != dataset.scenes(1)


def test_every_word_is_seen_and_test_prompts_are_not() -> None:
    scenes = dataset.scenes()
    assert {s.colour for s in scenes} == set(world.COLOURS)
    assert {s.position for s in scenes} == set(world.POSITIONS)
    assert {s.background for s in scenes} == set(world.BACKGROUNDS)
    assert not {dataset.caption_of(s) for s in scenes} & dataset.held_out()


def test_concept_is_not_in_the_known_world() -> None:
    assert dataset.CONCEPT not in world.SHAPES
    assert not any(dataset.TRIGGER in prompt for prompt in dataset.KNOWN_PROMPTS)


def test_size(tmp_path: Path) -> None:
    folder = dataset.write_dataset(tmp_path, size=128, count=2) / dataset.FOLDER
    assert {Image.open(p).size for p in folder.glob("*.png")} == {(128, 128)}
