"""Out of memory in the middle of a run: it goes on with less, and the result is the same."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lora_trainer.errors import LoraTrainerError
from lora_trainer.training.events import Finished, Notice, StepDone, Watched
from lora_trainer.training.step import Update
from tests.support.runs import of, run, tensors
from tests.support.tiny_host import TinyHost, TinyModel

FULL = RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
OPTIONS: dict[str, Any] = {
    "train_batch_size": 2, "network_dropout": 0.2, "shuffle_caption": True, "gradient_accumulation_steps": 2,
    "max_train_epochs": 4,
}  # fmt: skip
LORA = "loras/zork.safetensors"


class Small(TinyModel):
    """Has room for so many images at once, and for the activations of a recomputed UNet only if told so."""

    room: int = 10**6
    keeps: bool = True  # whether there is room for activations that aren't recomputed
    fails: frozenset[int] = frozenset()  # calls with gradients that find no memory
    calls: int = 0
    batches: tuple[int, ...] = ()

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Any, sizes: object) -> Tensor:
        if not torch.is_grad_enabled():
            return super().predict(noisy, timesteps, conditioning, sizes)
        self.calls += 1
        recomputes = any("forward" in vars(block) for block in self.blocks())
        if len(noisy) > self.room or not (self.keeps or recomputes) or self.calls in self.fails:
            raise FULL
        self.batches += (len(noisy),)
        return super().predict(noisy, timesteps, conditioning, sizes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    root = tmp_path_factory.mktemp("whole")
    run(root, **OPTIONS)
    return tensors(root / LORA)


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("seed", range(10))
def test_once_in_a_forward_pass_at_a_random_place(tmp_path: Path, whole: dict[str, Tensor], seed: int) -> None:
    model = Small()
    model.fails = frozenset({random.Random(seed).randrange(1, 20)})
    _, events = run(tmp_path, host=TinyHost(tmp_path / "loras", model), **OPTIONS)
    assert equal(tensors(tmp_path / LORA), whole), "bit for bit"
    [told] = of(events, Watched)
    assert told.kind == "memory" and "gradient checkpointing" in told.text and told.text in events[-1].notices
    assert [done.step for done in of(events, StepDone)] == list(range(1, events[-1].steps + 1)), "no step twice"


@pytest.mark.parametrize("seed", range(10))
def test_once_in_a_backward_pass_at_a_random_place(
    tmp_path: Path, whole: dict[str, Tensor], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When gradients of a part of the step are there already."""
    at, calls, backward = random.Random(seed).randrange(1, 20), 0, Update.backward

    def spoilt(update: Update, losses: Tensor, images: int) -> float:
        nonlocal calls
        calls += 1
        done = backward(update, losses, images)
        if calls == at:
            raise FULL
        return done

    monkeypatch.setattr(Update, "backward", spoilt)
    _, events = run(tmp_path, **OPTIONS)
    assert equal(tensors(tmp_path / LORA), whole)
    assert len(of(events, Watched)) == 1


def test_room_for_one_image_only(tmp_path: Path, whole: dict[str, Tensor]) -> None:
    """First recomputation, which doesn't help here, then one image at a time; the rest of the run begins so."""
    model = Small()
    model.room = 1
    _, events = run(tmp_path, host=TinyHost(tmp_path / "loras", model), **OPTIONS)
    assert [told.text.count("1 image at a time") for told in of(events, Watched)] == [0, 1]
    assert set(model.batches) == {1} and model.calls == len(model.batches) + 2, "nothing is tried again in vain"
    found = tensors(tmp_path / LORA)
    for key, value in whole.items():  # sums in another order: single entries, which Adam scales, differ by more
        assert torch.linalg.norm(found[key] - value) < 1e-3 * torch.linalg.norm(value)


def test_a_continuation_begins_with_the_memory_that_it_went_to(tmp_path: Path) -> None:
    model = Small()
    model.room = 1
    options = {**OPTIONS, "max_train_epochs": 0, "max_train_steps": 3}
    run(tmp_path, host=TinyHost(tmp_path / "loras", model), stop_at=1, **options)
    model.calls, model.batches = 0, ()
    _, events = run(tmp_path, host=TinyHost(tmp_path / "loras", model), resume=True, **options)
    assert of(events, Watched) == [] and model.calls == len(model.batches) > 3, "no step runs out of memory again"
    [told] = [notice.text for notice in of(events, Notice) if "run out of memory before" in notice.text]
    assert "gradient checkpointing and 1 of a batch's images at once" in told
    run(tmp_path / "whole", host=TinyHost(tmp_path / "whole/loras", model), **options)
    assert equal(tensors(tmp_path / LORA), tensors(tmp_path / "whole" / LORA)), "as without the break, bit for bit"


def test_where_nothing_helps_it_ends_with_what_would(tmp_path: Path) -> None:
    model = Small()
    model.room = 0
    with pytest.raises(LoraTrainerError, match="at 64x64 pixels, even with gradient checkpointing and one image"):
        run(tmp_path, host=TinyHost(tmp_path / "loras", model), **OPTIONS)
    model.room, model.keeps = 10, False
    _, events = run(tmp_path, host=TinyHost(tmp_path / "loras", model), gradient_checkpointing=True, **OPTIONS)
    assert isinstance(events[-1], Finished) and of(events, Watched) == [], "it began with recomputation"


def test_last_of_all_the_weights_are_held_in_another_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device with memory of its own; afterwards they are the model's own again."""
    monkeypatch.setattr("lora_trainer.training.shortage.has_own_memory", lambda device: True)

    class Heavy(Small):
        def predict(self, *args: Any) -> Tensor:
            if torch.is_grad_enabled() and not (self.weights.in_8_bits and self.weights.in_cpu):
                raise FULL
            return super().predict(*args)

    model = Heavy()
    before = {name: weight.clone() for name, weight in model.unet.state_dict().items()}
    options: dict[str, Any] = {"train_batch_size": 2, "max_train_steps": 2}
    _, events = run(tmp_path, host=TinyHost(tmp_path / "loras", model), stop_at=1, **options)
    said = [told.text for told in of(events, Watched)]
    assert len(said) == 4 and "in 8 bits" in said[2] and "in CPU memory" in said[3]
    assert model.held == [(12, 0), (12, 12)] and isinstance(events[-1], Finished)
    assert all(torch.equal(weight, before[name]) for name, weight in model.unet.state_dict().items())
    model = Heavy()
    _, events = run(tmp_path, host=TinyHost(tmp_path / "loras", model), resume=True, **options)
    assert of(events, Watched) == [] and model.held == [(12, 12)], "a continuation begins with that"
    assert any("weights in 8 bits, blocks in CPU memory" in notice.text for notice in of(events, Notice))
    forbidden = {**options, "max_train_steps": 3, "base_8bit": "never", "blocks_in_cpu_memory": 0}
    model = Heavy()
    with pytest.raises(LoraTrainerError, match="isn't enough memory"):
        run(tmp_path, host=TinyHost(tmp_path / "loras", model), resume=True, **forbidden)
    assert model.held == [], "unless the settings forbid it by now"
    with pytest.raises(LoraTrainerError, match="time: set base_8bit to auto, set blocks_in_cpu_memory to -1, use a sm"):
        run(tmp_path / "forbidden", host=TinyHost(tmp_path / "loras2", Heavy()), **forbidden)


def test_other_errors_end_the_run_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> float:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(Update, "backward", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        run(tmp_path, **OPTIONS)


def test_an_image_that_does_not_fit_whole_is_encoded_in_pieces(tmp_path: Path) -> None:
    class Narrow(TinyModel):
        def encode_images(self, pixels: Tensor, tile: int = 0) -> tuple[Tensor, Tensor]:
            if len(pixels) > 1 or not 0 < tile <= 256:
                raise FULL
            return super().encode_images(pixels)

    host, _ = run(tmp_path, host=TinyHost(tmp_path / "loras", Narrow()), vae_batch_size=4, max_train_epochs=1)
    assert host.model.images_encoded == 5

    class Full(TinyModel):
        def encode_images(self, pixels: Tensor, tile: int = 0) -> tuple[Tensor, Tensor]:
            raise FULL

    with pytest.raises(RuntimeError, match="out of memory"):
        run(tmp_path / "full", host=TinyHost(tmp_path / "loras2", Full()), max_train_epochs=1)


def test_images_are_encoded_one_by_one_where_there_is_no_room_for_more(tmp_path: Path) -> None:
    class Narrow(TinyModel):
        def encode_images(self, pixels: Tensor, tile: int = 0) -> tuple[Tensor, Tensor]:
            if len(pixels) > 1:
                raise FULL
            return super().encode_images(pixels)

    host, _ = run(tmp_path, host=TinyHost(tmp_path / "loras", Narrow()), vae_batch_size=4, max_train_epochs=1)
    assert host.model.images_encoded == 5
    run(tmp_path / "as ever", max_train_epochs=1)
    assert equal(tensors(tmp_path / LORA), tensors(tmp_path / "as ever" / LORA))
