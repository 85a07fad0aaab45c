"""Regularisation images that the checkpoint makes: a kohya folder, each image with its prompt, that a run uses."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_trainer.config import CaptionConfig, DatasetConfig
from lora_trainer.dataset.folders import scan
from lora_trainer.dataset.regularisation import make_images, suggested, wanted
from lora_trainer.errors import ConfigError, DatasetError
from lora_trainer.ui.errands.regularise import asked_for
from lora_trainer.ui.job import Job
from tests.support.office import OfficeHost, until
from tests.support.tiny_host import make_dataset


def test_an_epoch_uses_what_is_made(tmp_path: Path) -> None:
    dataset, host = make_dataset(tmp_path / "data", repeats=2), OfficeHost(tmp_path)
    plan = wanted(tmp_path / "out", "woman", Path("base.safetensors"), suggested(dataset), "person")
    assert plan.images == 10 and plan.target.name == "1_woman" and "base" in plan.folder.name
    made = list(make_images(host, plan))
    assert [one.done for one in made] == list(range(1, 11))
    asked = host.model.generated
    assert len({request.seed for request in asked}) == 10 and {request.width for request in asked} == {64}
    assert asked[0].prompt == "a woman in a forest" and "a woman" in asked[9].prompt
    found = scan(dataset, DatasetConfig(resolution=(64, 64), reg_data_dir=str(plan.folder)), CaptionConfig())
    reg = [item for item in found.items if item.is_reg]
    assert [item.captions[0] for item in reg] == [request.prompt for request in asked]
    assert found.reg_samples == found.train_samples == 10
    list(make_images(host, plan))
    assert len(host.model.generated) == 10, "what is there isn't made again"


def test_what_was_made_stays_when_it_is_stopped(tmp_path: Path) -> None:
    host = OfficeHost(tmp_path)
    plan = wanted(tmp_path / "out", "an owl", Path("base.ckpt"), 6)
    list(make_images(host, plan, lambda: len(host.model.generated) == 2))
    assert sorted(path.name for path in plan.target.iterdir()) == ["0001.png", "0001.txt", "0002.png", "0002.txt"]
    assert len(list(make_images(host, plan))) == 6 and len(host.model.generated) == 6


def test_checkpoints_of_one_name_share_nothing(tmp_path: Path) -> None:
    """They are told apart by what they hold, wherever they lie and however long their names are."""
    kept = tmp_path / "one" / f"{'long ' * 40}.safetensors"
    other, same = tmp_path / "two" / kept.name, tmp_path / "three" / kept.name
    content = bytes(2**20)
    for file, end in ((kept, b"a"), (other, b"b"), (same, b"a")):
        file.parent.mkdir()
        file.write_bytes(content + end)
    folders = [wanted(tmp_path / "out", "owl", file, 1).folder for file in (kept, other, same)]
    assert folders[0] != folders[1] and folders[0] == folders[2]
    folders[0].mkdir(parents=True)


def test_wishes_that_cannot_be_met(tmp_path: Path) -> None:
    for word, images, subject in (("", 5, ""), ("woman", 0, ""), ("woman", 10**6, ""), ("woman", 5, "cat")):
        with pytest.raises(ConfigError):
            wanted(tmp_path, word, Path("x"), images, subject)
    with pytest.raises(DatasetError, match="The class word 'a/b' can't be used"):
        wanted(tmp_path, "a/b", Path("x"), 5)


def test_the_job_makes_them_and_says_where(tmp_path: Path) -> None:
    dataset, host = make_dataset(tmp_path / "data", repeats=1), OfficeHost(tmp_path / "loras")
    job = Job(lambda: host, lambda: tmp_path / "out")
    errand = asked_for({"dataset": str(dataset), "class": "ring", "images": "3"}, host, tmp_path / "out")
    job.do(errand)
    status = until(job, "done", "failed")
    assert status["state"] == "done" and status["message"].startswith("3 regularisation images of “ring” in ")
    assert len(list(errand.plan.target.glob("*.png"))) == 3 and status["progress"]["done"] == 3
    for wrong in ({"class": ""}, {"class": "ring", "images": "many"}, {"class": "ring", "dataset": ""}, {"colour": 1}):
        with pytest.raises((ConfigError, DatasetError)):
            asked_for({"dataset": str(dataset), **wrong}, host, tmp_path)
    job.close()
