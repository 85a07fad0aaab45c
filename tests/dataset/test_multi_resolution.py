"""``extra_resolutions``: the images of a folder at several sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lora_trainer.config import CaptionConfig, DatasetConfig, RunConfig
from lora_trainer.dataset.batches import batches_per_epoch, plan_epoch
from lora_trainer.dataset.checks.check import check
from lora_trainer.dataset.dataset_file import write_dataset_file
from lora_trainer.dataset.folders import scan
from lora_trainer.dataset.items import Dataset
from lora_trainer.dataset.summary import describe, summary
from lora_trainer.errors import ConfigError
from lora_trainer.ui.estimate import count_steps

Save = Callable[..., Path]
Scan = Callable[..., Dataset]
SIZES = {"resolution": (128, 128), "extra_resolutions": "64, 96", "bucket_reso_steps": 32}


def test_an_epoch_has_each_image_at_each_size(save: Save, read: Scan) -> None:
    for number in range(3):
        save(f"2_zwx/{number}.png", (256, 256), f"zwx, {number}")
    data = read(**SIZES)
    uses = [(data.items[use.item].path.name, data.items[use.item].bucket) for batch in plan_epoch(data, 1, 7, 1)
            for use in batch]  # fmt: skip
    sizes = [(128, 128), (96, 96), (64, 64)]
    assert sorted(uses) == sorted([(f"{n}.png", size) for n in range(3) for size in sizes] * 2)
    assert data.train_samples == batches_per_epoch(data) == 18 and data.resolution == (128, 128)
    assert count_steps(data, RunConfig().replace(max_train_epochs=5, **SIZES)) == (90, 5)
    facts = summary(data)
    assert facts.images == 3 and facts.samples == 18
    lines = [line for line in describe(facts) if "2_zwx" in line]
    assert len(lines) == 3 and "128x128 px" in lines[0] and "64x64 px" in lines[2], "each line says which size"


def test_regularisation_is_matched_size_by_size(root: Path, save: Save, read: Scan, tmp_path: Path) -> None:
    for number in range(4):
        save(f"1_zwx/{number}.png", (256, 256))
        save(f"../reg/1_thing/{number}.png", (256, 256))
        save(f"../reg/1_thing/more{number}.png", (256, 256))
    data = read(**SIZES, reg_data_dir=str(root.parent / "reg"))
    for size in ((128, 128), (96, 96), (64, 64)):
        assert sum(item.repeats for item in data.items if item.is_reg and item.bucket == size) == 4
    assert data.reg_samples == data.train_samples == 12
    assert [folder.is_reg for folder in data.folders] == [False] * 3 + [True] * 3


def test_what_is_wrong_is_said_once(root: Path, save: Save) -> None:
    for number in range(2):
        save(f"1_zwx/{number}.png", (256, 256), "zwx")
    (root / "1_zwx" / "broken.png").write_bytes(b"no image")
    (root / "1_zwx" / "lonely.txt").write_text("zwx")
    once, twice = (check(root, DatasetConfig((""), (128, 128), extra), CaptionConfig()) for extra in ("", "64"))
    assert [(one.kind, one.reason) for one in twice.findings] == [(one.kind, one.reason) for one in once.findings]
    assert len(twice.dataset.skipped) == 1 and len(twice.dataset.items) == 4


def test_what_is_too_narrow_at_one_size_only_is_no_file_that_cannot_be_used(root: Path, save: Save) -> None:
    for name, size in (("square", (256, 256)), ("wide", (384, 256)), ("strip", (1024, 40))):
        save(f"1_zwx/{name}.png", size, "zwx")
    found = check(root, DatasetConfig((""), (256, 256), "64"), CaptionConfig())
    assert [one.path.stem for one in found.dataset.skipped] == ["strip"], "once, though at two sizes"
    told = next(one for one in found.findings if one.kind == "extra_resolutions")
    assert "1 image is not trained at 64x64 px" in told.reason and [path.stem for path in told.files] == ["wide"]


def test_a_dataset_file_has_sizes_of_its_own(root: Path, save: Save, read: Scan, tmp_path: Path) -> None:
    save("1_zwx/0.png", (256, 256))
    file = tmp_path / "data.toml"
    write_dataset_file(file, read(resolution=(128, 128)).folders)
    for unused in ("64", "384"):  # which is larger than those of the file
        data = scan(file, DatasetConfig(extra_resolutions=unused), CaptionConfig())
        assert len(data.items) == 1 and any("extra_resolutions isn't used" in told for told in data.notices)


@pytest.mark.parametrize("wrong", ["512", "768", "60", "big", "384;256", "-64", "256, 32"])
def test_sizes_that_cannot_be_trained(wrong: str) -> None:
    with pytest.raises(ConfigError, match=r"extra_resolutions can't be .*; give whole numbers, such as 384,256, of at"):
        RunConfig().replace(extra_resolutions=wrong)
    with pytest.raises(ConfigError, match="extra_resolutions need multiples of 8"):
        RunConfig().replace(extra_resolutions="100", enable_bucket=False)
