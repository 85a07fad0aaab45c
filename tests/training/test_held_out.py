"""Held-out images: never trained on, always the same ones, and what is learned of them is measured at every save."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lora_trainer.config import RunConfig
from lora_trainer.dataset.batches import plan_epoch
from lora_trainer.dataset.folders import scan
from lora_trainer.dataset.items import Dataset
from lora_trainer.errors import ConfigError
from lora_trainer.evaluation.learned import learned_chart
from lora_trainer.measures.denoising import GAIN_TIMESTEPS, Pictures, Rows
from lora_trainer.measures.probe import Probe
from lora_trainer.training.events import Learned
from lora_trainer.training.folder import read_learned
from tests.support.runs import of, run, tensors
from tests.support.tiny_host import TinyHost

SPLIT: dict[str, Any] = {"validation_split": 0.25, "save_every_n_epochs": 1, "max_train_epochs": 2}


def photos(root: Path, count: int = 16, folder: str = "2_zork") -> Path:
    """Images of noise, each unlike the others."""
    place = root / "data" / folder
    place.mkdir(parents=True)
    noise = np.random.default_rng(count)
    for number in range(count):
        Image.fromarray(noise.integers(0, 255, (64, 64, 3), np.uint8)).save(place / f"{number:02}.png")
        (place / f"{number:02}.txt").write_text(f"zork, picture {number}")
    return root / "data"


def read(root: Path, **options: Any) -> Dataset:
    config = RunConfig().replace(resolution=64, **options)
    return scan(root / "data", config.dataset, config.caption)


@pytest.mark.parametrize(("share", "seed"), [(0.25, 0), (0.2, 5), (0.5, 5), (0.01, 0)])
def test_they_are_sd_scripts_choice(tmp_path: Path, share: float, seed: int) -> None:
    """Each folder's paths in order, shuffled by Python's generator with that seed; the first ceil(n · (1 − share)) are
    trained on (library/train_util.py, split_train_val)."""
    photos(tmp_path, 15)
    photos(tmp_path, 9, "1_zork hat")
    found = read(tmp_path, validation_split=share, validation_seed=seed)
    expected = set()
    for folder in ("2_zork", "1_zork hat"):
        paths = sorted(str(path) for path in (tmp_path / "data" / folder).glob("*.png"))
        random.Random(seed).shuffle(paths)
        expected |= set(paths[math.ceil(len(paths) * (1 - share)) :])
    assert {str(item.path) for item in found.held_out} == expected
    assert len(found.items) + len(found.held_out) == 24
    assert f"{len(expected)} image{'' if len(expected) == 1 else 's'} of 24 held out" in found.notices[-1]


def test_an_epoch_has_every_other_image_and_none_of_them(tmp_path: Path) -> None:
    photos(tmp_path)
    found = read(tmp_path, validation_split=0.25)
    used = [sample.item for batch in plan_epoch(found, 3, 7, 1) for sample in batch]
    assert sorted(used) == sorted([*range(12)] * 2) and found.train_samples == 24


def test_with_few_images_none_is_held_out(tmp_path: Path) -> None:
    photos(tmp_path, 11)
    found = read(tmp_path, validation_split=0.25)
    assert not found.held_out and len(found.items) == 11
    assert found.notices[-1] == (
        "None of the 11 images is held out: with fewer than 12, each one is needed for training."
    )


def test_they_change_nothing_of_what_is_learned(tmp_path: Path) -> None:
    """The LoRA is bit by bit that of a dataset without them."""
    photos(tmp_path / "split")
    run(tmp_path / "split", **SPLIT)
    photos(tmp_path / "without")
    for item in read(tmp_path / "split", validation_split=0.25).held_out:
        (tmp_path / "without/data/2_zork" / item.path.name).unlink()
    run(tmp_path / "without", **{**SPLIT, "validation_split": 0})
    one, two = (tensors(tmp_path / where / "loras/zork.safetensors") for where in ("split", "without"))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_what_is_learned_of_them_is_measured_at_every_save(tmp_path: Path) -> None:
    """Computed again from the file."""
    photos(tmp_path)
    _, events = run(tmp_path, **SPLIT)
    learned = of(events, Learned)
    assert len(learned) == 2 and list(read_learned(tmp_path / "out/zork/learned.jsonl")) == learned
    dataset = read(tmp_path, validation_split=0.25)
    chosen = dataset.of_one_size(4, held_out=True)
    assert len(chosen) == 4 and all(index >= 12 for index in chosen)
    texts = [f"zork, picture {int(dataset.pictures[index].path.stem)}" for index in chosen]
    with TinyHost(tmp_path / "loras").take("no") as model, torch.no_grad():
        pixels = [np.asarray(Image.open(dataset.pictures[index].path), np.float32) / 127.5 - 1 for index in chosen]
        latents = torch.cat([model.encode_images(torch.tensor(one).permute(2, 0, 1)[None])[0] for one in pixels])
        rows, probe = Rows.of(Pictures(latents, tuple(texts), "held out"), GAIN_TIMESTEPS), Probe(model)
        before = rows.errors(probe)
        with probe.at(tmp_path / "loras/zork-000001.safetensors"):
            after = rows.errors(probe)
    gain = sum(float((before[:, t].mean() / after[:, t].mean()).log()) for t in range(6)) / len(GAIN_TIMESTEPS)
    assert learned[0].held_out is not None and learned[0].held_out[0] == pytest.approx(gain, abs=2e-4)
    chart = learned_chart(learned)
    assert "by images that are held out" in chart and chart.count("<polyline") == 3
    assert "by images that are held out" not in learned_chart(
        [Learned(o.step, o.epoch, o.gain, o.drift) for o in learned]
    )


def test_the_file_says_how_many(tmp_path: Path) -> None:
    from safetensors import safe_open

    photos(tmp_path)
    run(tmp_path, **SPLIT)
    with safe_open(tmp_path / "loras/zork.safetensors", "pt") as file:
        said = file.metadata()
    assert (said["ss_num_train_images"], said["ss_num_validation_images"]) == ("24", "8")
    assert (said["ss_validation_split"], said["ss_validation_seed"]) == ("0.25", "0")
    assert json.loads(said["ss_dataset_dirs"]) == {"2_zork": {"n_repeats": 2, "img_count": 12}}


def test_a_run_is_continued_with_the_same_ones(tmp_path: Path) -> None:
    photos(tmp_path)
    run(tmp_path, stop_at=5, **SPLIT)
    with pytest.raises(ConfigError, match="validation_seed was 0, now 1"):
        run(tmp_path, resume=True, validation_seed=1, **SPLIT)
    run(tmp_path, resume=True, **SPLIT)
    photos(tmp_path / "whole")
    run(tmp_path / "whole", **SPLIT)
    one, two = (tensors(root / "loras/zork.safetensors") for root in (tmp_path, tmp_path / "whole"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_where_nothing_is_measured_it_is_said(tmp_path: Path) -> None:
    photos(tmp_path)
    _, events = run(tmp_path, **{**SPLIT, "save_every_n_epochs": 0})
    assert any("held out" in text and "no save on the way" in text for text in events[-1].notices)
