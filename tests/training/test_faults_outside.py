"""Faults of what a run depends on: images that go, a model that is unloaded, samples that fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_trainer.errors import DatasetError, LoraTrainerError
from lora_trainer.training.events import Event, Notice, Saved, Started, StepDone, Watched
from lora_trainer.training.run import train
from tests.support.faults import OPTIONS, continued, undisturbed
from tests.support.runs import of, request, run
from tests.support.tiny_host import TinyHost

LIVE = {**OPTIONS, "cache_latents": False}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return undisturbed(tmp_path_factory.mktemp("whole"), **OPTIONS)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a run that reads its images at every use."""
    return undisturbed(tmp_path_factory.mktemp("live"), **LIVE)


def stepwise(root: Path, events: list[Event], act: dict[int, Callable[[], Any]], **options: Any) -> Iterator[Event]:
    """A run during which something happens after certain steps."""
    for event in train(*request(root, **options)):
        events.append(event)
        if isinstance(event, StepDone):
            act.get(event.step, lambda: None)()
        yield event


def test_an_image_that_is_deleted_on_the_way_is_named(tmp_path: Path, live: bytes) -> None:
    events: list[Event] = []
    image = tmp_path / "data/2_zork/3.png"
    with pytest.raises(DatasetError, match=r"3\.png"):
        for _ in stepwise(tmp_path, events, {5: lambda: image.rename(tmp_path / "3.png")}, **LIVE):
            pass
    assert of(events, Saved) and "can be resumed" in of(events, Notice)[-1].text
    (tmp_path / "3.png").rename(image)
    run(tmp_path, resume=True, **LIVE)
    assert (tmp_path / "loras/zork.safetensors").read_bytes() == live


def test_an_image_that_is_changed_on_the_way_is_told_and_not_resumed_with(tmp_path: Path) -> None:
    events: list[Event] = []
    folder = tmp_path / "data/2_zork"
    for _ in stepwise(
        tmp_path, events, {12: lambda: (folder / "3.png").write_bytes((folder / "4.png").read_bytes())}, **LIVE
    ):
        pass
    told = [event.text for event in of(events, Watched)]
    assert told == ["3.png was changed during the run. It is trained as it is now."]
    with pytest.raises(LoraTrainerError, match=r"1 image changed \(2_zork/3\.png\)"):
        run(tmp_path, resume=True, **LIVE)


def test_cached_images_may_go_on_the_way(tmp_path: Path, whole: bytes) -> None:
    events: list[Event] = []
    for _ in stepwise(tmp_path, events, {5: lambda: (tmp_path / "data/2_zork/3.png").unlink()}, **OPTIONS):
        pass
    assert (tmp_path / "loras/zork.safetensors").read_bytes() == whole


def test_a_model_that_is_unloaded_under_the_run(tmp_path: Path, whole: bytes) -> None:
    host, asked, token = request(tmp_path, **OPTIONS)
    events: list[Event] = []
    with pytest.raises((RuntimeError, NotImplementedError)):
        for event in train(host, asked, token):
            events.append(event)
            if isinstance(event, StepDone) and event.step == 12:
                host.model.unet.to("meta")
    assert not host.taken and of(events, Saved)[-1].step == 12
    assert "The run can be resumed." in of(events, Notice)[-1].text
    continued(tmp_path, whole)


@pytest.mark.parametrize("kind", [RuntimeError, TypeError, MemoryError, torch.cuda.OutOfMemoryError, LoraTrainerError])
def test_an_exception_in_a_sample_ends_nothing(tmp_path: Path, whole: bytes, kind: type[Exception]) -> None:
    host = TinyHost(tmp_path / "loras")

    def failing(asked: Any) -> Any:
        raise kind(
            "CUDA out of memory. Tried to allocate" if kind is torch.cuda.OutOfMemoryError else "no picture today"
        )

    host.model.generate = failing  # type: ignore[method-assign]
    _, events = run(tmp_path, host=host, **OPTIONS)
    told = [notice.text for notice in of(events, Notice) if "Sample" in notice.text]
    memory = kind in (MemoryError, torch.cuda.OutOfMemoryError)
    why = "there wasn't enough memory; a smaller picture (--w and --h in sample_prompts) needs less"
    assert told[0] == f"Sample image 1 at step 0 failed: {why if memory else 'no picture today'}" and of(
        events, Started
    )
    assert (tmp_path / "loras/zork.safetensors").read_bytes() == whole
