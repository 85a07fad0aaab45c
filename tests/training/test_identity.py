"""What may differ between a run and its continuation, and the sentence for what may not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lora_trainer.errors import ConfigError, FileError
from lora_trainer.training.events import Finished, Notice, Started
from lora_trainer.training.state_file import read_state, write_state
from tests.support.runs import of, run
from tests.support.tiny_host import TinyHost


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped after a few steps."""
    root = tmp_path_factory.mktemp("stopped")
    run(root, stop_at=3, save_every_n_steps=2)
    return root


@pytest.fixture
def root(stopped: Path, tmp_path: Path) -> Path:
    """A copy of it in the same place as before, so that nothing but what a test changes is different."""
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    return tmp_path


def refusal(root: Path, **options: Any) -> str:
    """The sentence; nothing of the run is changed by it."""
    state = (root / "out/zork/state/state.pt").read_bytes()
    with pytest.raises(ConfigError) as told:
        run(root, resume=True, **options)
    assert (root / "out/zork/state/state.pt").read_bytes() == state
    return str(told.value)


def rewrite(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what the state says about the run that it belongs to."""
    path = root / "out/zork/state/state.pt"
    state = read_state(path)
    identity = json.loads(state["identity"])
    change(identity)
    state["identity"] = json.dumps(identity)
    write_state(path, state)
    path.with_name("previous.pt").unlink()


def test_images_that_came_went_and_changed_are_named(root: Path) -> None:
    folder = root / "data/2_zork"
    for name in "abcde":
        Image.new("RGB", (64, 64)).save(folder / f"{name}.png")
    (folder / "1.png").unlink()
    Image.new("RGB", (64, 64)).save(folder / "2.png")
    (folder / "3.txt").write_text("other words")
    assert refusal(root) == (
        "Can't resume: since then 5 images came (2_zork/a.png, 2_zork/b.png, 2_zork/c.png and 2 more), and 1 image "
        "went (2_zork/1.png), and 1 image changed (2_zork/2.png), and 1 caption changed (2_zork/3.png). Put that back, "
        "or begin a new run, which can go on from this one's LoRA as network_weights."
    )


def test_other_repeats_are_told(root: Path) -> None:
    (root / "data/2_zork").rename(root / "data/3_zork")
    assert "5 images came (3_zork/0.png" in refusal(root)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        (r"checkpoint (tiny.safetensors then, other.safetensors now)", {"checkpoint": "other.safetensors"}),
        ("checkpoint's contents", {"checkpoint_sha256": "11"}),
        ("VAE", {"vae_fingerprint": "vae-2"}),
        ("text encoder", {"text_fingerprint": "text-2"}),
    ],
)
def test_the_part_of_the_model_that_is_another_is_named(root: Path, part: str, change: dict[str, str]) -> None:
    host = TinyHost(root / "loras")
    host.model.info = replace(host.model.info, **change)  # type: ignore[arg-type]
    assert refusal(root, host=host).startswith(f"Can't resume: the {part} isn't the one that the run was started with.")


def test_base_weights_with_another_content_are_another_model(tmp_path: Path) -> None:
    run(tmp_path, "beneath", max_train_steps=1)
    options = {"base_weights": [str(tmp_path / "loras/beneath.safetensors")]}
    run(tmp_path, stop_at=3, **options)
    run(tmp_path, "beneath", max_train_steps=2, overwrite=True)
    assert "the content of base_weights isn't the one that the run was started with" in refusal(tmp_path, **options)


def test_a_checksum_that_the_host_does_not_know_is_no_change(root: Path) -> None:
    host = TinyHost(root / "loras")
    host.model.info = replace(host.model.info, checkpoint_sha256="")
    _, events = run(root, host=host, resume=True)
    assert of(events, Finished)[0].step == 20


def test_another_version_and_another_machine_go_on_with_a_word(root: Path) -> None:
    rewrite(root, lambda identity: identity["made on"].update(torch="2.0.0", device="cuda"))
    _, events = run(root, resume=True, base_8bit="always")
    told = [notice.text for notice in of(events, Notice)]
    assert told == [
        f"The run was started with torch 2.0.0, now {torch.__version__}; device cuda, now cpu; base_8bit auto, now "
        "always: it goes on, but not to the very same last digits."
    ]


def test_8_bits_that_neither_setting_uses_on_a_processor_are_no_change(root: Path) -> None:
    _, events = run(root, resume=True, base_8bit="never")
    assert [notice.text for notice in of(events, Notice)] == []


def test_an_option_that_is_newer_than_the_state_had_its_usual_value(root: Path) -> None:
    rewrite(root, lambda identity: identity["config"].pop("conv_dim"))
    _, events = run(root, resume=True, stop_at=5)
    assert of(events, Started)[0].step == 3
    rewrite(root, lambda identity: identity["config"].pop("conv_dim"))
    assert refusal(root, conv_dim=2).startswith("Can't resume: conv_dim was 0, now 2.")


def test_a_state_of_an_older_version_asks_to_make_sure(root: Path) -> None:
    def older(identity: dict[str, Any]) -> None:
        del identity["images"], identity["made on"]
        identity |= {"dataset": "5 images, 01234567", "model": "tiny.safetensors, 01234567"}

    rewrite(root, older)
    _, events = run(root, resume=True)
    assert next(notice.text for notice in of(events, Notice)).startswith("The state is an older version's")


def test_a_state_of_a_newer_format_is_refused(root: Path) -> None:
    path = root / "out/zork/state/state.pt"
    write_state(path, {**read_state(path), "format": 99})
    assert refusal(root).startswith(
        f"{path} is of another version (state format 99, this one reads up to 2); resume with the version"
    )


def test_an_optimiser_state_of_another_release_is_refused_in_a_sentence(root: Path) -> None:
    path = root / "out/zork/state/state.pt"
    state = read_state(path)
    state["parts"]["optimizer"]["param_groups"] = []
    write_state(path, state)
    assert refusal(root).startswith(f"The optimizer doesn't take its state from {path} (")


def test_a_state_without_its_loras_writes_them_again_and_says_what_is_gone(root: Path) -> None:
    for path in (root / "loras").iterdir():
        path.unlink()
    _, events = run(root, resume=True, save_every_n_steps=2)
    lost = [notice.text for notice in of(events, Notice)]
    assert lost == ["zork-step00000002.safetensors, which this run saved, isn't in the LoRA folder any more."]
    assert (root / "loras/zork.safetensors").is_file() and of(events, Finished)[0].step == 20


def test_a_read_only_run_folder_is_one_sentence(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch = Path.touch

    def read_only(self: Path, *args: Any, **more: Any) -> None:
        if self.parent == root / "out/zork":
            raise PermissionError(13, "Permission denied")
        touch(self, *args, **more)

    monkeypatch.setattr(Path, "touch", read_only)
    with pytest.raises(
        FileError, match=r"^The output folder .*zork can't be written \(Permission denied\)\. Choose ano"
    ):
        run(root, resume=True)
