"""What is said of a dataset: counts and lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_trainer.dataset.items import Dataset
from lora_trainer.dataset.summary import describe, summary, to_json
from lora_trainer.errors import counted


@pytest.fixture
def data(save: Callable[..., Path], read: Callable[..., Dataset], tmp_path: Path) -> Dataset:
    save("10_ohwx dog/a.png", (600, 400), "ohwx dog, Sitting\nsecond line")
    save("10_ohwx dog/b.png", (600, 400), "ohwx dog")
    save("10_ohwx dog/c.png", (512, 512))
    save("2_mug/d.png", (512, 512), "")
    save("2_mug/e.png", (1, 1))
    for n in range(3):
        save(f"../reg/1_dog/{n}.png", (512, 512))
    return read(reg_data_dir=str(tmp_path / "reg"))


def test_counts(data: Dataset) -> None:
    facts = summary(data)
    assert (facts.images, facts.samples, facts.reg_images, facts.reg_samples) == (4, 32, 3, 32)
    assert [(f.name, f.trigger, f.repeats, f.images, f.samples, f.is_reg) for f in facts.folders] == [
        ("10_ohwx dog", "ohwx dog", 10, 3, 30, False),
        ("2_mug", "mug", 2, 1, 2, False),
        ("1_dog", "dog", 1, 3, 32, True),
    ]
    assert (facts.captions_missing, facts.captions_empty) == (1, 1)
    assert facts.buckets == (((512, 512), 10 + 2 + 32), ((576, 384), 20))
    assert facts.mean_aspect_error == 0
    assert len(facts.skipped) == 1 and "e.png" in facts.skipped[0]
    assert facts.folders[0].tags == {"ohwx dog": 3, "sitting": 1}  # only the line that is trained


def test_json_and_lines(data: Dataset) -> None:
    facts = summary(data)
    plain = to_json(facts)
    assert json.loads(json.dumps(plain)) == plain
    assert plain["buckets"] == [[[512, 512], 44], [[576, 384], 20]]
    lines = describe(facts)
    assert all("\n" not in line for line in lines)
    text = "\n".join(lines)
    assert "4 images, 32 samples per epoch" in text
    assert counted(1, "image") == "1 image" and counted(0, "image") == "0 images"
    assert "576x384: 20 samples" in text
    assert "1 file skipped" in lines
