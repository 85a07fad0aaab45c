"""What a run refuses, and what is left when something fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_host import TinyHost, TinyModel

from lora_trainer.config import RunConfig
from lora_trainer.errors import ConfigError, FileError, TrainingDivergedError, UnsupportedModelError
from lora_trainer.training.events import CancelToken, Finished, Started
from lora_trainer.training.request import RunRequest
from lora_trainer.training.run import train
from tests.support.runs import SMALL, of, run, tensors


def test_nan_stops_with_everything_saved(tmp_path: Path) -> None:
    host = TinyHost(tmp_path / "loras")
    original, calls = host.model.predict, []

    def poisoned(*args: Any) -> torch.Tensor:
        if torch.is_grad_enabled():  # otherwise it is the base model that is compared with
            calls.append(1)
        return original(*args) * (float("nan") if len(calls) == 6 else 1.0)

    host.model.predict = poisoned  # type: ignore[method-assign]
    with pytest.raises(TrainingDivergedError, match=r"loss became NaN or infinite in step 6 with \d.png; .* step 5 is"):
        run(tmp_path, host=host)
    assert all(t.isfinite().all() for t in tensors(tmp_path / "loras/zork.safetensors").values())
    calls.append(1)
    run(tmp_path, host=host, resume=True)
    run(tmp_path / "whole")
    resumed, whole = ((tmp_path / p / "loras/zork.safetensors").read_bytes() for p in ("", "whole"))
    assert resumed == whole


@pytest.mark.parametrize("part", ["UNet", "text encoder"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_checkpoint_is_named_and_not_the_settings(tmp_path: Path, part: str, value: float) -> None:
    host = TinyHost(tmp_path / "loras")
    module = host.model.unet if part == "UNet" else host.model.text
    name, weight = next((n, w) for n, w in module.named_parameters() if n.endswith(("to_out.0.weight", "fc1.weight")))
    weight.data[0, 0] = value
    with pytest.raises(UnsupportedModelError, match=rf"tiny.safetensors .* its {part} holds NaN or .*{name}\)") as told:
        run(tmp_path, host=host)
    assert "resume" not in str(told.value) and "saved" not in str(told.value) and " more" not in str(told.value)
    others = [w for n, w in module.named_parameters() if n.endswith("norm1.weight")]
    for weight in others[:2]:
        weight.data[0] = value
    with pytest.raises(UnsupportedModelError, match=rf" and {len(others[:2])} more\)"):
        run(tmp_path, host=host)
    assert not (tmp_path / "loras/zork.safetensors").exists()


def test_nan_in_the_first_step_promises_nothing(tmp_path: Path) -> None:
    host = TinyHost(tmp_path / "loras")
    original = host.model.predict
    host.model.predict = lambda *args: original(*args) * float("nan")  # type: ignore[method-assign]
    with pytest.raises(TrainingDivergedError, match=r"in step 1 with .*nothing was trained yet") as told:
        run(tmp_path, host=host)
    assert "resume" not in str(told.value)


def test_whatever_ends_a_run_saves_what_was_trained(tmp_path: Path) -> None:
    host = TinyHost(tmp_path / "loras")
    encode, calls = host.model.encode_images, []

    def failing(pixels: torch.Tensor, tile: int = 0) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise OSError("the drive was pulled out")
        return encode(pixels, tile)

    host.model.encode_images = failing  # type: ignore[method-assign]
    with pytest.raises(OSError, match="pulled out"):
        run(tmp_path, host=host, cache_latents=False)
    assert (tmp_path / "loras/zork.safetensors").is_file() and not host.taken
    _, events = run(tmp_path, resume=True, cache_latents=False)
    assert of(events, Started)[0].step == 3


def test_stopped_before_the_first_step_a_lora_of_that_name_stays(tmp_path: Path) -> None:
    run(tmp_path)
    before = (tmp_path / "loras/zork.safetensors").read_bytes()
    token, host = CancelToken(), TinyHost(tmp_path / "loras")
    request = RunRequest("zork", tmp_path / "data", RunConfig().replace(**SMALL), tmp_path / "out", overwrite=True)
    events = []
    for event in train(host, request, token):
        events.append(event)
        token.cancel()
    assert host.model.images_encoded <= 1 and of(events, Finished)[0].path is None
    assert (tmp_path / "loras/zork.safetensors").read_bytes() == before


def test_a_disk_too_small_for_the_state_still_gets_the_lora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")

    monkeypatch.setattr("lora_trainer.training.state_file.torch.save", full)
    host, events = run(tmp_path)
    finished = of(events, Finished)[0]
    assert finished.path == host.lora_dir / "zork.safetensors" and finished.path.is_file()
    assert any("state.pt" in notice and "can't be resumed" in notice for notice in finished.notices)


def test_a_lora_folder_that_cannot_be_written_is_found_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "loras").write_text("a file in the way")
    with pytest.raises(FileError, match=r"LoRA folder .* can't be written"):
        run(tmp_path)


def test_nan_latents_name_the_image(tmp_path: Path) -> None:
    with pytest.raises(TrainingDivergedError, match=r"VAE gives NaN for 0\.png"):
        run(tmp_path, host=TinyHost(tmp_path / "loras", TinyModel(poison=True)))


@pytest.mark.parametrize("name", ["", " x", "a:b", "a<b", "a/b", "none", ".hidden", "a,b"])
def test_names_that_the_prompt_syntax_or_a_disk_forbids(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="can't be used"):
        run(tmp_path, name)


def test_an_existing_lora_is_not_overwritten_unasked(tmp_path: Path) -> None:
    run(tmp_path)
    before = (tmp_path / "loras/zork.safetensors").read_bytes()
    with pytest.raises(ConfigError, match=r"zork\.safetensors exists already"):
        run(tmp_path, seed=8)
    assert (tmp_path / "loras/zork.safetensors").read_bytes() == before


def test_unwritable_output_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file in the way")
    with pytest.raises(FileError, match=r"output folder .* can't be written"):
        run(tmp_path)


def test_a_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, stop_at=2)
    before = (tmp_path / "loras/zork.safetensors").read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(FileError, match="No space left on device"):
        run(tmp_path, resume=True)
    assert (tmp_path / "loras/zork.safetensors").read_bytes() == before
    assert not list(tmp_path.rglob("*.tmp"))
