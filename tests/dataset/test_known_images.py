"""An image of a dataset by its id, without listing the folder for each."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from lora_trainer.dataset import known_images
from lora_trainer.dataset.known_images import find_image


def add(folder: Path, name: str) -> Path:
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (64, 64)).save(folder / name)
    return folder / name


def test_an_image_is_found_and_a_change_noticed(tmp_path: Path) -> None:
    first = add(tmp_path / "2_zwx", "a.png")
    assert find_image(tmp_path, "2_zwx/a.png") == first
    second = add(tmp_path / "3_owl", "b.png")
    assert find_image(tmp_path, "3_owl/b.png") == second
    first.rename(first.with_name("c.png"))
    assert find_image(tmp_path, "2_zwx/a.png") is None
    assert find_image(tmp_path, "2_zwx/c.png") == first.with_name("c.png")
    (tmp_path / "2_zwx").rename(tmp_path / "zwx")
    assert find_image(tmp_path, "2_zwx/c.png") is None
    assert find_image(tmp_path, "3_owl/../3_owl/b.png") is None, "an id is no path"


def test_the_folder_is_listed_once_as_long_as_it_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [add(tmp_path / "2_zwx", f"{number}.png") for number in range(3)]
    listed = []
    whole = known_images.training_folders
    monkeypatch.setattr(known_images, "training_folders", lambda dataset: listed.append(dataset) or whole(dataset))
    for image in images * 2:
        assert find_image(tmp_path, f"2_zwx/{image.name}") == image
    assert listed == [tmp_path]
    os.utime(tmp_path / "2_zwx", ns=(1, 1))
    find_image(tmp_path, "2_zwx/0.png")
    assert listed == [tmp_path] * 2
