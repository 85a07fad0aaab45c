"""Automatic captions through the job: they take the model's turn, can be stopped, and show how far they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lora_trainer.errors import HostBusyError, LoraTrainerError
from lora_trainer.hosts.base import Captioner, Described, Progress
from lora_trainer.ui.errands.describe import asked_for, offered
from lora_trainer.ui.job import Job
from lora_trainer.ui.looking import Looking, OnStage, StoppedError
from lora_trainer.ui.request import prepare_dataset
from tests.support.office import OfficeHost, until
from tests.support.tiny_host import make_dataset


class Describing(OfficeHost):
    """A host with a BLIP of its own, and a DeepBooru whose file is missing."""

    def captioners(self) -> dict[str, str]:
        return {"blip": "", "deepbooru": "Its model isn't there yet."}

    @contextmanager
    def captioner(self, name: str) -> Iterator[Captioner]:
        self.calls.append(f"open {name}")
        yield self
        self.calls.append("park")

    def describe(self, image: Image.Image) -> Described:
        return Described(sentence=f"a red {image.width} px square")


@pytest.fixture
def host(tmp_path: Path) -> Describing:
    return Describing(tmp_path / "loras")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    made = make_dataset(tmp_path / "data")
    for number in range(4):
        (made / "2_zork" / f"{number}.txt").unlink()
    return made


def test_captions_are_written_in_turn(job: Job, host: Describing, dataset: Path, tmp_path: Path) -> None:
    values = {"dataset": str(dataset), "captioner": "blip"}
    assert job.do(asked_for(values, host, tmp_path / "out")).startswith("task(")
    status = until(job, "done", "failed")
    assert status["message"] == "4 captions written, 1 image left as it was." and status["name"] == "captions of data"
    assert host.calls == ["begin", "open blip", "park", "end"]
    assert (dataset / "2_zork" / "0.txt").read_text() == "zork, a red 64 px square"
    assert [(one.done, one.total) for one in host.shown] == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4), (4, 4)]


def test_they_can_be_stopped_and_nothing_else_begins(job: Job, host: Describing, dataset: Path, tmp_path: Path) -> None:
    refused: list[Exception] = []

    def act(progress: Progress) -> None:
        if progress.done == 2:
            try:
                job.start({"name": "x", "dataset": str(dataset)})
            except LoraTrainerError as error:
                refused.append(error)
            job.stop()

    host.act = act
    job.do(asked_for({"dataset": str(dataset), "captioner": "blip"}, host, tmp_path / "out"))
    status = until(job, "stopped", "failed", "done")
    assert status["state"] == "stopped" and status["message"].startswith("Stopped: 2 captions written"), status
    assert isinstance(refused[0], HostBusyError) and "captions of data isn't finished" in str(refused[0])
    assert sorted(path.stem for path in dataset.rglob("*.txt")) == ["0", "1", "4"]


@pytest.mark.parametrize(
    ("values", "told"),
    [({"captioner": "deepbooru"}, "DeepBooru: Its model isn't there yet."),
     ({"captioner": "wd14"}, "needs the folder with its model"),
     ({"captioner": "blip", "threshold": "much"}, "threshold can't be 'much'"),
     ({"captioner": "blip", "subject": "cat"}, "subject can't be 'cat'"), ({}, "captioner is missing"),
     ({"captioner": "blip", "existing": "replace"}, "1 caption was written or edited by hand"),
     ({"captioner": "blip", "colour": 1}, "'colour' can't be used in caption")],
)  # fmt: skip
def test_what_cannot_be_begun(
    host: Describing, dataset: Path, tmp_path: Path, values: dict[str, Any], told: str
) -> None:
    with pytest.raises(LoraTrainerError, match=told):
        asked_for({"dataset": str(dataset), **values}, host, tmp_path / "out")


def test_what_is_offered(host: Describing, tmp_path: Path) -> None:
    names = [(row["name"], row["own"]) for row in offered(host)["captioners"]]
    assert names == [("blip", True), ("deepbooru", True), ("florence-2", False), ("wd14", False)]
    alone = offered(OfficeHost(tmp_path))
    assert [row["name"] for row in alone["captioners"]] == ["blip", "florence-2", "wd14"] and "person" in alone["rules"]


def test_a_check_and_a_copy_can_be_stopped_while_a_training_goes_on(job: Job, dataset: Path, tmp_path: Path) -> None:
    assert job.status()["looking"] is None and not job.looking.stop()
    seen: list[dict[str, Any] | None] = []

    class Stops(Looking):
        @contextmanager
        def at_work(self, what: str) -> Iterator[OnStage]:
            with super().at_work(what) as told:

                def after(done: int, total: int, *more: str) -> None:
                    told(done, total, *more)
                    seen.append(self.to_dict())
                    if self.to_dict() == stop_at:
                        self.stop()

                yield after

    job.looking = Stops()
    stop_at: dict[str, Any] = {"what": "Looking at images", "done": 2, "total": 5}
    with pytest.raises(StoppedError, match="Stopped after 3 of 5 images"):
        job.check({"dataset": str(dataset)})
    assert [one["done"] for one in seen if one] == [1, 2] and job.looking.to_dict() is None
    stop_at = {"what": "Copying photos", "done": 3, "total": 5}
    with pytest.raises(StoppedError):
        prepare_dataset({"source": str(dataset / "2_zork"), "trigger": "zwx"}, tmp_path / "out", job.looking)
    assert not (tmp_path / "out" / "datasets" / "zwx").exists() or not any((tmp_path / "out/datasets/zwx").iterdir())
