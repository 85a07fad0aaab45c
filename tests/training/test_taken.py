"""Nothing that isn't the run's own is replaced unasked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_trainer.errors import HostBusyError, NameTakenError
from lora_trainer.network.file import write_lora
from lora_trainer.training.events import Finished, Saved, Started, StepDone
from lora_trainer.training.run import train
from tests.support.runs import of, run, snapshot


def foreign(path: Path, session: str = "4711") -> bytes:
    """A LoRA file that another run wrote."""
    write_lora(path, {"lora_unet_x.alpha": torch.tensor(1.0)}, {"ss_session_id": session})
    return path.read_bytes()


def test_a_run_that_broke_off_is_not_begun_anew_unasked(tmp_path: Path) -> None:
    run(tmp_path, stop_at=5)
    (tmp_path / "loras/zork.safetensors").unlink()  # as after a crash: the state is all there is
    before = snapshot(tmp_path)
    with pytest.raises(NameTakenError, match=r"run named zork was interrupted after step \d of 20") as caught:
        run(tmp_path)
    assert caught.value.choices == ("resume", "overwrite") and snapshot(tmp_path) == before
    _, events = run(tmp_path, resume=True)
    assert of(events, Started)[0].step in (5, 6, 7) and of(events, Finished)[0].step == 20


def test_replacing_a_run_leaves_nothing_of_it_to_go_on_with(tmp_path: Path) -> None:
    run(tmp_path, stop_at=15)
    folder = tmp_path / "out/zork"
    (folder / "samples").mkdir(exist_ok=True)
    (folder / "samples/step000015_00.png").touch()
    (folder / "samples/mine.png").touch()
    events = train(*_request(tmp_path, overwrite=True))
    for event in events:
        if isinstance(event, Started):
            assert (folder / "state/state.pt").is_file()  # nothing has taken its place yet
        if isinstance(event, StepDone):
            break  # a crash would come now: before the new run's first state
    assert not (folder / "state/state.pt").exists() and not (folder / "samples/step000015_00.png").exists()
    assert (folder / "samples/mine.png").exists()
    events.close()
    assert [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()] == [1]


def test_replacing_that_ends_before_its_first_step_changes_nothing(tmp_path: Path) -> None:
    run(tmp_path, stop_at=5)
    before = snapshot(tmp_path)
    host, request, token = _request(tmp_path, overwrite=True)
    for _ in train(host, request, token):
        token.cancel()
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "options", "asked"),
    [
        ("zork.safetensors", {}, True),
        ("zork-000002.safetensors", {"save_every_n_epochs": 1}, True),
        ("zork-000003.safetensors", {"save_every_n_epochs": 2}, False),  # it will not be written
        ("zork-000002.safetensors", {}, False),
        ("zork-step00000008.safetensors", {"save_every_n_steps": 4}, True),
        ("zork-step00000008.safetensors", {"save_every_n_steps": 5}, False),
        ("zork-other.safetensors", {"save_every_n_steps": 1, "save_every_n_epochs": 1}, False),
        ("zork2-000002.safetensors", {"save_every_n_epochs": 1}, False),
    ],
)
def test_somebody_elses_file_is_asked_about(tmp_path: Path, name: str, options: dict[str, int], asked: bool) -> None:
    (tmp_path / "loras").mkdir()
    content = foreign(tmp_path / "loras" / name)
    if asked:
        with pytest.raises(NameTakenError, match=f"{name} exists already") as caught:
            run(tmp_path, **options)
        assert caught.value.choices == ("overwrite",) and not (tmp_path / "out").exists()
    else:
        run(tmp_path, max_train_epochs=4, **options)
    assert (tmp_path / "loras" / name).read_bytes() == content


def test_several_files_are_named_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "loras").mkdir()
    for name in ("zork.safetensors", "zork-000001.safetensors"):
        foreign(tmp_path / "loras" / name)
    with pytest.raises(
        NameTakenError, match=r"zork\.safetensors, \S*zork-000001\.safetensors exist already\. Replace them"
    ):
        run(tmp_path, save_every_n_epochs=1)


def test_a_run_that_goes_on_replaces_its_own_files_only(tmp_path: Path) -> None:
    options = {"save_every_n_epochs": 1, "max_train_epochs": 4}
    run(tmp_path, stop_at=15, **options)
    later = tmp_path / "loras/zork-000003.safetensors"
    content = foreign(later)
    with pytest.raises(NameTakenError, match=r"zork-000003\.safetensors .* this run didn't write it") as caught:
        run(tmp_path, resume=True, **options)
    assert caught.value.choices == ("resume+overwrite",) and later.read_bytes() == content
    run(tmp_path, resume=True, overwrite=True, **options)
    assert later.read_bytes() != content


def test_its_own_file_that_the_state_does_not_know_is_no_obstacle(tmp_path: Path) -> None:
    options = {"save_every_n_epochs": 1, "max_train_epochs": 3}
    run(tmp_path, stop_at=5, **options)
    first = (tmp_path / "out/zork/state/state.pt").read_bytes()
    run(tmp_path, resume=True, stop_at=15, **{**options, "learning_rate": 2e-3})  # which makes it another session
    (tmp_path / "out/zork/state/state.pt").write_bytes(first)  # as after a crash between file and state
    _, events = run(tmp_path, resume=True, **{**options, "learning_rate": 2e-3})
    assert of(events, Finished)[0].step == 30


@pytest.mark.parametrize("result", ["report.json", "samples/step000010_00.png"])
def test_results_of_another_run_are_asked_about(tmp_path: Path, result: str) -> None:
    path = tmp_path / "out/zork" / result
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(NameTakenError, match=f"results of another run .{path.name}"):
        run(tmp_path)
    assert path.read_text() == "mine"
    run(tmp_path, overwrite=True)


def test_a_run_that_failed_before_it_had_anything_can_simply_be_tried_again(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        run(tmp_path, fails_at=1, error=RuntimeError("shapes differ"))
    _, events = run(tmp_path)
    assert of(events, Finished)[0].step == 20


def test_two_runs_of_one_name_do_not_mix(tmp_path: Path) -> None:
    first = train(*_request(tmp_path, save_every_n_steps=1))
    for event in first:
        if isinstance(event, Saved):  # what it has written by now isn't an interrupted run's
            break
    for elsewhere in (tmp_path / "out", tmp_path / "other"):  # the same folder; another one, but the same LoRA
        with pytest.raises(HostBusyError, match="Another run of that name is in progress"):
            next(train(*_request(tmp_path, output=elsewhere, save_every_n_steps=1)))
    assert of(list(first), Finished)[0].step == 20
    log = (tmp_path / "out/zork/log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == list(range(1, 21))


def _request(tmp_path: Path, **changes: Any):  # type: ignore[no-untyped-def]
    from tests.support.runs import request

    return request(tmp_path, **changes)
