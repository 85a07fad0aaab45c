"""Whatever ends a run: what was trained is saved, it is told where, and it can be continued to the same file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_trainer.errors import FileError
from lora_trainer.training.events import Event, Finished, Notice, Saved, Started, StepDone
from lora_trainer.training.run import train
from lora_trainer.training.state_file import is_intact
from tests.support.runs import of, request, run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a run that nothing disturbed."""
    place = tmp_path_factory.mktemp("whole")
    run(place)
    return (place / "loras/zork.safetensors").read_bytes()


@pytest.mark.parametrize(
    "kind", [ArithmeticError, TypeError, AssertionError, RecursionError, KeyboardInterrupt, SystemExit]
)
def test_every_ending_saves_and_says_where(tmp_path: Path, whole: bytes, kind: type[BaseException]) -> None:
    events: list[Event] = []
    with pytest.raises(kind):
        run(tmp_path, fails_at=6, error=kind("enough"), events=events)
    lora = tmp_path / "loras/zork.safetensors"
    assert of(events, Notice)[-1].text == (
        f"What was trained until step 5 is saved as {lora}. The run can be resumed."
    ) and [saved.path for saved in of(events, Saved)] == [lora]
    assert lora.is_file()
    _, events = run(tmp_path, resume=True)
    assert of(events, Started)[0].step == 5 and lora.read_bytes() == whole


def test_a_state_that_cannot_be_written_is_told_and_nothing_else_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError("no room")

    monkeypatch.setattr("lora_trainer.training.state_file.write_state", full)
    events: list[Event] = []
    with pytest.raises(TypeError):
        run(tmp_path, fails_at=6, error=TypeError("enough"), events=events)
    lora, state = tmp_path / "loras/zork.safetensors", tmp_path / "out/zork/state/state.pt"
    assert [notice.text for notice in of(events, Notice)][-2:] == [
        f"Can't write {state}: OSError (no room). The run can't be resumed.",
        f"What was trained until step 5 is saved as {lora}.",
    ]


def test_a_reader_that_gives_up_is_no_loss(tmp_path: Path, whole: bytes, caplog: pytest.LogCaptureFixture) -> None:
    events = train(*request(tmp_path))
    for event in events:
        if isinstance(event, StepDone) and event.step == 5:
            break
    events.close()
    assert "until step 5 is saved" in caplog.text
    run(tmp_path, resume=True)
    assert (tmp_path / "loras/zork.safetensors").read_bytes() == whole


def test_an_abort_in_the_middle_of_an_update_waits_for_its_end(
    tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, asked, token = request(tmp_path)
    step, calls = torch.optim.AdamW.step, [0]

    def interrupted(self: Any, *args: Any, **more: Any) -> Any:
        calls[0] += 1
        if calls[0] == 5:
            token.abort()  # what the second Ctrl-C does
        return step(self, *args, **more)

    monkeypatch.setattr(torch.optim.AdamW, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(train(host, asked, token))
    monkeypatch.undo()
    _, events = run(tmp_path, resume=True)
    assert of(events, Started)[0].step == 5
    assert (tmp_path / "loras/zork.safetensors").read_bytes() == whole


def test_a_step_that_was_half_applied_does_not_spoil_the_state(
    tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, stop_at=5)
    step, calls = torch.optim.AdamW.step, [0]

    def breaking(self: Any, *args: Any, **more: Any) -> Any:
        result = step(self, *args, **more)
        calls[0] += 1
        if calls[0] == 4:
            raise RuntimeError("after the weights, before the position")
        return result

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", breaking)
        with pytest.raises(RuntimeError):
            run(tmp_path, resume=True)
    run(tmp_path, resume=True)
    assert (tmp_path / "loras/zork.safetensors").read_bytes() == whole


def no_room_for(patch: pytest.MonkeyPatch, wanted: Callable[[str], bool]) -> None:
    replace = Path.replace

    def full(source: Path, target: Any) -> Path:
        if wanted(Path(target).name):
            raise OSError(28, "No space left on device")
        return replace(source, target)

    patch.setattr(Path, "replace", full)


def test_a_disk_too_small_for_the_lora_still_gets_the_state(
    tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        no_room_for(patch, lambda name: name.endswith(".safetensors"))
        with pytest.raises(FileError, match=r"No space left .* Everything up to step 20 is in .*state\.pt: resume"):
            run(tmp_path)
    run(tmp_path, resume=True)
    assert (tmp_path / "loras/zork.safetensors").read_bytes() == whole


def test_a_disk_too_small_for_both_is_told_in_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_room_for(monkeypatch, lambda name: name.endswith((".safetensors", ".pt")))
    with pytest.raises(FileError, match=r"another folder\. Can't write .*state\.pt: .* The run can't be resumed\."):
        run(tmp_path)


def test_a_save_on_the_way_that_fails_ends_nothing(
    tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_room_for(monkeypatch, lambda name: name.startswith("zork-step"))
    _, events = run(tmp_path, save_every_n_steps=8)
    told = [notice.text for notice in of(events, Notice) if "zork-step" in notice.text]
    assert len(told) == 2 and all("Training continues." in text for text in told)
    assert of(events, Finished)[0].step == 20 and (tmp_path / "out/zork/state/state.pt").is_file()


def test_the_state_before_is_kept_and_used_where_the_newest_is_damaged(tmp_path: Path, whole: bytes) -> None:
    run(tmp_path, stop_at=5)
    run(tmp_path, resume=True, stop_at=12)
    state = tmp_path / "out/zork/state/state.pt"
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 4
    state.write_bytes(content)
    _, events = run(tmp_path, resume=True)
    started = of(events, Started)[0]
    assert started.step < 12
    assert any(f"state.pt is damaged or missing: continuing from {state.with_name('previous.pt')}" in notice.text
               for notice in of(events, Notice))  # fmt: skip
    assert (tmp_path / "loras/zork.safetensors").read_bytes() == whole
    assert [step for step, _ in started.before.losses] == list(range(1, started.step + 1))


def test_both_states_damaged_is_one_sentence(tmp_path: Path) -> None:
    run(tmp_path, stop_at=5)
    run(tmp_path, resume=True, stop_at=12)
    for state in (tmp_path / "out/zork/state").glob("*.pt"):
        state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(FileError, match="is damaged"):
        run(tmp_path, resume=True)


def test_no_flipped_byte_goes_unseen(tmp_path: Path) -> None:
    run(tmp_path, stop_at=2)
    state, flipped = tmp_path / "out/zork/state/state.pt", tmp_path / "flipped.pt"
    content = state.read_bytes()
    for at in range(7, len(content), len(content) // 150):
        flipped.write_bytes(content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :])
        assert not is_intact(flipped), at
    assert is_intact(state)
    plain = tmp_path / "plain.pt"  # as version 0.1 wrote it
    torch.save(torch.load(state, weights_only=True), plain)
    assert is_intact(plain)
    plain.write_bytes(plain.read_bytes()[:-5])
    assert not is_intact(plain)


def test_a_full_disk_gives_up_the_state_before_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, stop_at=5)
    run(tmp_path, resume=True, stop_at=12)
    folder, save = tmp_path / "out/zork/state", torch.save

    def cramped(value: Any, path: Path) -> None:
        if (folder / "previous.pt").exists() and (folder / "state.pt").exists():
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")
        save(value, path)

    monkeypatch.setattr("lora_trainer.training.state_file.torch.save", cramped)
    _, events = run(tmp_path, resume=True)
    assert not of(events, Finished)[0].notices and is_intact(folder / "state.pt")


@pytest.mark.parametrize(
    "spoilt", [b"\xff\xfe\n", b'{"step": 1e999}\n', b'{"step": ' + b"9" * 5000 + b"}\n", b"[" * 9000]
)
def test_bad_bytes_in_the_log_do_not_block_resuming(tmp_path: Path, whole: bytes, spoilt: bytes) -> None:
    run(tmp_path, stop_at=5)
    log = tmp_path / "out/zork/log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(lines[0] + spoilt + b"\n" + b"".join(lines[2:]))
    _, events = run(tmp_path, resume=True)
    assert (tmp_path / "loras/zork.safetensors").read_bytes() == whole
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == [1, *range(3, 21)]
    assert [step for step, _ in of(events, Started)[0].before.losses] == steps[: len(lines) - 1]


def test_a_continued_run_brings_its_curve_its_files_and_its_samples(tmp_path: Path) -> None:
    options = {"save_every_n_epochs": 1, "sample_every_n_epochs": 1, "sample_prompts": "zork at sea"}
    _, events = run(tmp_path, stop_at=12, **options)
    curve = [(step.step, step.loss) for step in of(events, StepDone)]
    _, events = run(tmp_path, resume=True, **options)
    before = of(events, Started)[0].before
    assert list(before.losses) == curve
    assert [path.name for path in before.saved] == ["zork-000001.safetensors", "zork.safetensors"]
    assert [(step, prompt) for step, _, prompt in before.samples] == [(0, "zork at sea"), (10, "zork at sea")]


def test_half_written_files_of_killed_runs_go_and_others_stay(tmp_path: Path) -> None:
    out, loras = tmp_path / "out", tmp_path / "loras"
    gone = [loras / ".zork.safetensors.0123abcd.tmp", loras / ".zork-000002.safetensors.0123abcd.tmp",
            out / "zork/state/.state.pt.0123abcd.tmp", out / "zork/samples/.step000001_00.png.0123abcd.tmp",
            out / "zork/.run.json.0123abcd.tmp"]  # fmt: skip
    old = [out / "cache/latents/.abc.safetensors.0123abcd.tmp", loras / ".zork.png.0123abcd.tmp"]
    kept = [loras / ".zork2.safetensors.0123abcd.tmp", loras / "zork.tmp", loras / ".zork.safetensors.mine.tmp",
            out / "cache/latents/.new.safetensors.0123abcd.tmp", out / "other/.run.json.0123abcd.tmp"]  # fmt: skip
    for path in [*gone, *old, *kept]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for path in old:
        os.utime(path, (1, 1))
    run(tmp_path, max_train_epochs=1)
    assert not [path for path in [*gone, *old] if path.exists()] and all(path.exists() for path in kept)
    assert not list(tmp_path.rglob("*.lock"))


def test_what_the_network_notes_is_told_before_the_first_step(tmp_path: Path) -> None:
    run(tmp_path, text_encoder_lr=1e-2, unet_lr=0)
    weights = (tmp_path / "loras/zork.safetensors").rename(tmp_path / "loras/start.safetensors")
    _, events = run(tmp_path / "second", network_weights=str(weights), text_encoder_lr=1e-2)
    first = next(index for index, event in enumerate(events) if isinstance(event, Started))
    told = [notice.text for notice in of(events[:first], Notice)]
    assert any("Not in start.safetensors" in text for text in told), told
