"""Regularisation folders: kohya's rule of as many uses as training images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lora_trainer.errors import DatasetError

Save = Callable[..., Path]
Scan = Callable[..., object]


def notice(data, *words: str) -> str:
    """The one notice that has all these words."""
    found = [text for text in data.notices if all(word in text for word in words)]
    assert len(found) == 1, data.notices
    return found[0]


def reg(save: Save, count: int, repeats: int, folder: str = "person") -> None:
    for n in range(count):
        save(f"../reg/{repeats}_{folder}/{n:03}.png")


def test_too_many_regularisation_images(save: Save, read: Scan, tmp_path: Path) -> None:
    for n in range(3):
        save(f"4_a/{n}.png", caption="x")
    reg(save, 20, 1)
    data = read(reg_data_dir=str(tmp_path / "reg"))
    regs = [item for item in data.items if item.is_reg]
    assert data.train_samples == 12
    assert [item.repeats for item in regs] == [1] * 12
    assert [item.path.name for item in regs] == [f"{n:03}.png" for n in range(12)]  # in folder order
    assert regs[0].captions == ("person",)
    assert "8 of 20 regularisation images aren't used" in notice(data, "aren't used")


def test_too_few_regularisation_images_are_repeated(save: Save, read: Scan, tmp_path: Path) -> None:
    for n in range(3):
        save(f"4_a/{n}.png", caption="x")
    reg(save, 5, 1)
    data = read(reg_data_dir=str(tmp_path / "reg"))
    assert [item.repeats for item in data.items if item.is_reg] == [3, 3, 2, 2, 2]
    assert data.reg_samples == data.train_samples == 12
    assert "repeated to 12 samples" in notice(data, "repeated")


def test_regularisation_repeats_are_taken_before_they_are_adjusted(save: Save, read: Scan, tmp_path: Path) -> None:
    for n in range(3):
        save(f"4_a/{n}.png", caption="x")
    reg(save, 4, 5)
    data = read(reg_data_dir=str(tmp_path / "reg"))
    assert [item.repeats for item in data.items if item.is_reg] == [5, 5, 5]  # 15 ≥ 12, the fourth isn't needed


def test_regularisation_folder_that_is_missing_or_empty(save: Save, read: Scan, tmp_path: Path) -> None:
    save("1_a/a.png", caption="x")
    with pytest.raises(DatasetError, match="reg doesn't exist"):
        read(reg_data_dir=str(tmp_path / "reg"))
    (tmp_path / "reg").mkdir()
    with pytest.raises(DatasetError, match="reg holds no images"):
        read(reg_data_dir=str(tmp_path / "reg"))
    save("../reg/1_person/one.png", (1, 1))
    with pytest.raises(DatasetError, match=r"reg can be used \(1 skipped\).*one\.png"):
        read(reg_data_dir=str(tmp_path / "reg"))
