"""What was learned and damaged, measured at every save: the right figures, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lora_trainer.measures.denoising import DRIFT_TIMESTEPS, GAIN_TIMESTEPS, Pictures, Rows
from lora_trainer.measures.probe import Probe
from lora_trainer.training.events import Finished, Learned, Notice, Preparing, Started
from lora_trainer.training.folder import read_learned
from lora_trainer.training.watch.learning import Learning, worthwhile
from tests.support.runs import of, run, tensors
from tests.support.tiny_host import TinyHost

SAVES: dict[str, Any] = {"save_every_n_epochs": 1, "max_train_epochs": 3}


@pytest.mark.parametrize("options", [{}, {"text_encoder_lr": 1e-3}, {"network_dropout": 0.3, "cache_latents": False}])
def test_no_bit_of_the_training_changes(tmp_path: Path, options: dict[str, Any]) -> None:
    run(tmp_path / "on", **SAVES, **options)
    run(tmp_path / "off", **SAVES, measure_at_saves=False, **options)
    for name in ("zork-000001", "zork-000002", "zork"):
        on, off = (tensors(tmp_path / which / f"loras/{name}.safetensors") for which in ("on", "off"))
        assert on.keys() == off.keys() and all(torch.equal(on[key], off[key]) for key in on)
    assert not (tmp_path / "off/out/zork/learned.jsonl").exists()


@pytest.mark.parametrize("options", [{}, {"text_encoder_lr": 1e-2}])
def test_the_figures_are_those_of_the_saved_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """Computed again from the file, one prediction at a time, with the sums written out."""
    kept: list[Learning] = []
    begin = Learning.begin
    monkeypatch.setattr(Learning, "begin", lambda self: (kept.append(self), begin(self))[1])
    _, events = run(tmp_path, **SAVES, **options)
    learned = of(events, Learned)
    assert [(one.step, one.epoch) for one in learned] == [(10, 1), (20, 2), (30, 3)]
    assert learned[0].gain is not None and 0 < learned[0].gain[0] < learned[2].gain[0]
    assert 0 < learned[0].drift[0] < learned[2].drift[0]
    images, known = kept[0].images, kept[0].known
    assert images is not None and known is not None
    host = TinyHost(tmp_path / "loras")
    with host.take("no") as model, torch.no_grad():
        probe = Probe(model)
        before, base = images.errors(probe), known.outputs(probe)
        with probe.at(tmp_path / "loras/zork-000001.safetensors"):
            after, moved = images.errors(probe), known.outputs(probe)
    gain = sum(float((before[:, t].mean() / after[:, t].mean()).log()) for t in range(6)) / len(GAIN_TIMESTEPS)
    shares = [float((a - b).norm() / b.norm()) for a, b in zip(moved, base, strict=True)]
    assert learned[0].gain[0] == pytest.approx(gain, abs=2e-4)
    assert learned[0].drift[0] == pytest.approx(sum(shares) / len(shares), abs=2e-4)
    assert len(shares) == 4 * len(DRIFT_TIMESTEPS)
    for value, low, high in (learned[0].gain, learned[0].drift):
        assert low <= value <= high


def test_a_lora_that_does_nothing_has_learned_and_damaged_nothing(tmp_path: Path) -> None:
    _, events = run(tmp_path, **SAVES, learning_rate=1e-12)
    for one in of(events, Learned):
        assert one.gain == pytest.approx((0, 0, 0), abs=1e-4) and one.drift == pytest.approx((0, 0, 0), abs=1e-4)


def test_nothing_is_encoded_once_the_text_encoders_are_away(tmp_path: Path) -> None:
    host, events = run(tmp_path, **SAVES)
    assert len(of(events, Learned)) == 3
    assert host.model.with_it == {"vae": {("vae",)}, "text_encoders": {("text_encoders",)}, "unet": {("unet",)}}


@pytest.mark.parametrize("at", ["encode", "begin", "measure"])
def test_what_fails_is_told_once_and_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    def failing(*_: Any) -> Any:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Learning, f"_{at}", failing)
        _, events = run(tmp_path / "failed", **SAVES)
    run(tmp_path / "whole", **SAVES)
    told = [event.text for event in of(events, Notice) if "isn't measured" in event.text]
    assert len(told) == 1 and not of(events, Learned)
    assert told[0] in of(events, Finished)[0].notices
    one, two = (tensors(tmp_path / which / "loras/zork.safetensors") for which in ("failed", "whole"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_continued_run_has_the_points_of_before(tmp_path: Path) -> None:
    _, whole = run(tmp_path / "whole", **SAVES)
    run(tmp_path, **SAVES, stop_at=15)
    file = tmp_path / "out/zork/learned.jsonl"
    file.write_text(file.read_text() + '{"step": 99, "epoch": 9, "gain": null, "drift": [0, 0, 0]}\n{"step": 1\n[]\n')
    _, events = run(tmp_path, resume=True, **SAVES)
    before = of(events, Started)[0].before.learned
    assert [one.step for one in before] == [10]
    assert [*before, *of(events, Learned)] == of(whole, Learned) == list(read_learned(file))


def test_a_training_that_goes_back_counts_its_damage_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN in step 15, so it goes back to step 10: of the saves over the cap only those of after that are in a row."""
    monkeypatch.setattr("lora_trainer.training.watch.learning.DRIFT_CAP", -1.0)
    host, calls = TinyHost(tmp_path / "loras"), [0]
    predict = host.model.predict

    def spoilt(*args: Any) -> torch.Tensor:
        calls[0] += torch.is_grad_enabled()
        bad = torch.is_grad_enabled() and calls[0] == 15
        return predict(*args) * (float("nan") if bad else 1.0)

    host.model.predict = spoilt  # type: ignore[method-assign]
    _, events = run(tmp_path, host=host, stop_on_damage=True, **SAVES)
    assert [start.step for start in of(events, Started)] == [0, 10]
    assert [one.step for one in of(events, Started)[1].before.learned] == [10]
    assert [one.step for one in of(events, Learned)] == [10, 20, 30] and not of(events, Finished)[0].stopped


def test_one_image_of_a_size_has_no_gain(tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "data/1_zork"
    folder.mkdir(parents=True)
    Image.new("RGB", (64, 64), "red").save(folder / "a.png")
    Image.new("RGB", (128, 64), "red").save(folder / "b.png")
    _, events = run(tmp_path, **SAVES)
    assert {one.gain for one in of(events, Learned)} == {None}
    assert all(one.drift[0] > 0 for one in of(events, Learned))


def test_without_a_save_on_the_way_nothing_is_measured(tmp_path: Path) -> None:
    from lora_trainer.config import SaveConfig

    _, events = run(tmp_path, save_every_n_epochs=3, max_train_epochs=3)
    assert not of(events, Learned) and "measuring the base model" not in {event.what for event in of(events, Preparing)}
    assert worthwhile(SaveConfig(save_every_n_epochs=0, save_every_n_steps=9), 10, 1)
    assert not worthwhile(SaveConfig(save_every_n_epochs=0, save_every_n_steps=10), 10, 1)
    assert not worthwhile(SaveConfig(measure_at_saves=False), 10, 10)


def test_rows_keep_pictures_and_timesteps_together() -> None:
    rows = Rows.of(Pictures(torch.arange(2.0).view(2, 1, 1, 1).expand(2, 4, 2, 2), ("a", "b"), "k"), (5, 7, 9))
    assert rows.texts == ("a", "a", "a", "b", "b", "b") and rows.timesteps.tolist() == [5, 7, 9, 5, 7, 9]
    assert rows.latents[:, 0, 0, 0].tolist() == [0, 0, 0, 1, 1, 1]
