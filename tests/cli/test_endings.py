"""How a training from the command line ends, and what is saved then."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.cli import main
from tests.support.command_line import ROOT, SMALL, TRAIN, interrupt, on_step, one_line, train


def test_ctrl_c_saves_ends_with_0_and_resumes(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        on_step(patch, 3, interrupt)
        assert train("--test") == 0
    out = capsys.readouterr().out
    assert "Stopped at step 3 of 10" in out or "Stopped at step 4 of 10" in out
    assert "--resume" in out and "Done" not in out
    assert (place / "output/lora/zork.safetensors").is_file() and not (place / "output/zork/report.json").exists()
    assert signal.getsignal(signal.SIGINT) is before
    assert train("--resume") == 0
    out = capsys.readouterr().out
    assert "from step" in out and "Done:" in out
    lines = (place / "output/zork/log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 11))


def test_second_ctrl_c_aborts(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with monkeypatch.context() as patch:
        on_step(patch, 3, lambda: (interrupt(), interrupt()))
        assert train() == 130
    assert "Aborted" in one_line(capsys.readouterr().err)
    assert (place / "output/lora/zork.safetensors").is_file()  # what was trained is saved all the same
    assert train("--resume") == 0
    assert "from step 3" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_the_end_of_the_terminal_or_of_the_patience_saves(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    number = getattr(signal, name)
    on_step(monkeypatch, 3, lambda: os.kill(os.getpid(), number))
    before = signal.signal(number, signal.SIG_DFL)  # the tests themselves may run under nohup
    try:
        assert train() == 128 + number
    finally:
        signal.signal(number, before)
    assert "everything is saved" in capsys.readouterr().out
    assert (place / "output/lora/zork.safetensors").is_file() and (place / "output/zork/state/state.pt").is_file()


def test_what_nohup_ignores_stays_ignored(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        on_step(monkeypatch, 3, lambda: os.kill(os.getpid(), signal.SIGHUP))
        assert train() == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("CUDA out of memory. Tried"), RuntimeError("x: can't allocate memory: you")]
)
def test_memory_that_runs_out_is_a_sentence_with_a_remedy(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def run_out(*_: Any) -> None:
        raise error

    monkeypatch.setattr("lora_trainer.cli.settings.run_presets", run_out)
    assert main(["config", "presets"]) == 1
    assert "There isn't enough memory: use a smaller resolution" in capsys.readouterr().err


def test_output_that_nobody_reads_ends_a_run_tidily(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone() -> None:
        raise BrokenPipeError(32, "Broken pipe")

    with monkeypatch.context() as patch:
        on_step(patch, 3, gone)
        assert train() == 1
    told = one_line(capsys.readouterr().err)
    assert "stopped after step" in told and "zork.safetensors is saved; --resume" in told
    assert (place / "output/lora/zork.json").is_file()
    assert train("--resume") == 0


@pytest.mark.slow
@pytest.mark.parametrize("how", ["head", "SIGKILL"])
def test_a_program_that_is_ended_can_be_continued(place: Path, how: str) -> None:
    command = [sys.executable, str(ROOT / "tests/support/tiny_cli.py"), *TRAIN, "--name", "zork", "--set", *SMALL]
    command += ["max_train_epochs=40", "save_every_n_steps=5", "optimizer_type=AdamW"]
    slow = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    process = subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=slow)
    assert process.stdout is not None and process.stderr is not None
    for line in process.stdout:
        if line.startswith("Saved") and (place / "output/zork/state/state.pt").is_file():
            break  # the state is written beside the steps, and of a step that others have followed
    if how == "head":
        process.stdout.close()
    else:
        process.send_signal(getattr(signal, how))
    error = process.stderr.read()
    status = process.wait(120)
    assert status == {"head": 1, "SIGKILL": -9}[how], error
    assert "Traceback" not in error and "Exception ignored" not in error, error
    result = subprocess.run([*command, "max_train_epochs=4", "--resume"], cwd=place, capture_output=True, text=True,
                            env=slow, timeout=300)  # fmt: skip
    assert result.returncode == 0 and ", from step " in result.stdout, result.stderr
    assert not list(place.rglob("*.tmp")) and not list(place.rglob("*.lock"))


def test_the_choices_are_told_as_options(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train() == 0
    (place / "output/lora/zork.safetensors").unlink()
    capsys.readouterr()
    assert train() == 2
    told = one_line(capsys.readouterr().err)
    assert "a run named zork finished at step 10" in told
    assert "(--resume continues it, --overwrite replaces what is there)" in told


def test_a_library_that_exits_is_a_failure(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def leave(*args: object, **more: object) -> None:
        raise SystemExit(0)

    monkeypatch.setattr("lora_trainer.cli.dataset.check", leave)
    assert main(["check", "data"]) == 1
    assert "ended the program" in one_line(capsys.readouterr().err)


def test_taken_name_is_refused_unless_overwriting(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train() == 0
    before = (place / "output/lora/zork.safetensors").read_bytes()
    assert train() == 2
    assert "zork.safetensors exists already" in one_line(capsys.readouterr().err)
    assert (place / "output/lora/zork.safetensors").read_bytes() == before
    assert train("--overwrite") == 0


def test_full_disk_is_a_failure(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    replace = Path.replace

    def full(source: Path, target: Any) -> Path:
        if str(target).endswith(".safetensors"):
            raise OSError(28, "No space left on device")
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", full)
    assert train() == 1
    assert "No space left on device" in one_line(capsys.readouterr().err)
    assert not list((place / "output/lora").glob("*"))
