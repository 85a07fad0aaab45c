"""The command line: what it does, what it says, and its exit status."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.tiny_host import TinyHost, make_dataset

from lora_trainer.cli import main
from lora_trainer.cli.terminal import ProgressBar, duration
from lora_trainer.cli.train import Reader
from lora_trainer.kohya import notices_on_fields
from lora_trainer.training.events import Event, StepDone

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["resolution=64", "network_dim=4", "max_train_epochs=2", "text_encoder_lr=0", "seed=7", "learning_rate=1e-2"]
TRAIN = ["train", "--checkpoint", "base.safetensors", "--dataset", "data"]
KOHYA = {
    "LoRA_type": "Standard", "epoch": 1, "learning_rate": "1e-3", "max_resolution": "64,64", "network_dim": 4,
    "network_alpha": 4, "mixed_precision": "no", "optimizer": "AdamW", "text_encoder_lr": "0", "unet_lr": "1e-3",
    "cache_latents": True, "train_batch_size": 1, "seed": "7", "lr_warmup": "0", "save_every_n_epochs": 0,
}  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a dataset, where every checkpoint is a tiny random model."""
    make_dataset(tmp_path / "data", repeats=1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "lora_trainer.hosts.standalone.host.DiffusersHost", lambda checkpoint, lora_dir, **options: TinyHost(lora_dir)
    )
    return tmp_path


def train(*more: str, name: str = "zork") -> int:
    return main(
        ["train", "--checkpoint", "base.safetensors", "--dataset", "data", "--name", name, *more, "--set", *SMALL]
    )


def one_line(text: str) -> str:
    assert text.endswith("\n") and text.count("\n") == 1 and "Traceback" not in text, text
    return text


def on_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], Any]) -> None:
    """Call ``act`` when the terminal is told of this step."""
    show = Reader.show

    def acting(self: Reader, event: Event) -> None:
        show(self, event)
        if isinstance(event, StepDone) and event.step == step:
            act()

    monkeypatch.setattr(Reader, "show", acting)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_train_writes_its_files_and_says_so(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "data/1_zork/broken.png").write_bytes(b"no picture")
    assert train("--output", "runs") == 0
    out, err = capsys.readouterr()
    assert err == ""
    for name in (
        "lora/zork.safetensors",
        "lora/zork-000001.safetensors",
        "lora/zork.json",
        "zork/run.json",
        "zork/log.jsonl",
    ):
        assert (place / "runs" / name).is_file(), name
    assert json.loads((place / "runs/lora/zork.json").read_text())["activation text"] == "zork"
    assert "Done: 10 steps" in out and "Step 10/10" in out
    assert "LoRA: runs/lora/zork.safetensors" in out and "modules)" in out
    assert "Also saved: zork-000001.safetensors" in out
    assert "Images: 5 used, 1 skipped" in out and "broken.png" in out


def test_lora_dir_is_chosen_apart(place: Path) -> None:
    assert train("--lora-dir", "models/Lora") == 0
    assert (place / "models/Lora/zork.safetensors").is_file() and (place / "output/zork/run.json").is_file()


def test_train_and_test_leave_a_page(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--test") == 0
    report = json.loads((place / "output/zork/report.json").read_text())
    assert {row["strength"] for row in report["images"] if row["kind"] == "strength"} == {0, 0.4, 0.6, 0.8, 1.0, 1.2}
    assert len({row["case"] for row in report["images"] if row["kind"] == "integration"}) >= 2
    assert report["trigger"] == "zork"
    assert "Report: output/zork/report.html" in capsys.readouterr().out
    assert (place / "output/lora/zork.png").is_file()


def test_test_command_reads_its_options(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train() == 0
    (place / "prompts.txt").write_text("{trigger} at sea\n{trigger} on ice\n{trigger} --n blurry\n")
    command = ["test", "output/lora/zork.safetensors", "--checkpoint", "base.safetensors", "--strengths", "0.5,1"]
    assert main([*command, "--prompts", "prompts.txt", "--seeds", "5", "--output", "tested", "--size", "64,128"]) == 0
    report = json.loads((place / "tested/zork/report.json").read_text())
    assert [row["strength"] for row in report["strengths"]] == [0, 0.5, 1]
    assert report["prompts"]["integration"][0] == "<lora:zork:0.8> zork at sea"
    assert len(report["prompts"]["integration"]) == 3 and report["seeds"] == [5]
    assert (report["settings"]["width"], report["settings"]["height"]) == (64, 128)
    assert len(report["epochs"]) == 1
    capsys.readouterr()
    for wrong, word in ((["--strengths", "much"], "much"), (["--size", "65"], "65"), (["--steps", "0"], "steps")):
        assert main([*command, *wrong]) == 2
        assert word in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(("assigned", "expected"), [("true", "v_prediction"), ("false", None)])
def test_test_command_predicts_as_the_lora_was_trained(
    place: Path, monkeypatch: pytest.MonkeyPatch, assigned: str, expected: str | None
) -> None:
    assert (
        main([*TRAIN, "--name", "zork", "--set", *SMALL, "max_train_epochs=1", f"v_parameterization={assigned}"]) == 0
    )
    asked: list[Any] = []

    def opened(checkpoint: Path, lora_dir: Path, **options: Any) -> TinyHost:
        asked.append(options["prediction_type"])
        return TinyHost(lora_dir)

    monkeypatch.setattr("lora_trainer.hosts.standalone.host.DiffusersHost", opened)
    command = ["test", "output/lora/zork.safetensors", "--checkpoint", "base.safetensors", "--strengths", "0"]
    assert main([*command, "--seeds", "1", "--no-epochs", "--size", "64"]) == 0
    assert asked == [expected]


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
    assert train() == 128 + number
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
        if line.startswith("Saved"):
            break
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


def test_notes_on_the_network_come_before_the_first_step(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, "--name", "zork", "--set", *SMALL, "text_encoder_lr=1e-3", "unet_lr=0"]) == 0
    (place / "output/lora/zork.safetensors").rename(place / "start.safetensors")
    capsys.readouterr()
    more = ["network_weights=start.safetensors", "text_encoder_lr=1e-3"]
    assert main([*TRAIN, "--name", "next", "--set", *SMALL, *more]) == 0
    out = capsys.readouterr().out
    assert out.index("aren't in start.safetensors") < out.index("Training ")


def test_a_library_that_exits_is_a_failure(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def leave(*args: object, **more: object) -> None:
        raise SystemExit(0)

    monkeypatch.setattr("lora_trainer.cli.dataset.scan", leave)
    assert main(["check", "data"]) == 1
    assert "ended the program" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--name", "x"], ["--checkpoint", "--dataset"]),
        (["train", "--checkpoint", "c", "--dataset", "nowhere", "--name", "x"], ["nowhere"]),
        ([*TRAIN, "--name", "a:b"], ["a:b"]),
        ([*TRAIN, "--name", "x", "--set", "network_dimm=4"], ["network_dimm", "mean network_dim"]),
        ([*TRAIN, "--name", "x", "--set", "network_dim=0"], ["network_dim", "0"]),
        ([*TRAIN, "--name", "x", "--set", "network_dim"], ["network_dim"]),
        ([*TRAIN, "--name", "x", "--preset", "nope"], ["nope", "starter"]),
        ([*TRAIN, "--name", "x", "--config", "none.json"], ["none.json"]),
        (["train", "--config", "none.json", "--preset", "starter"], ["--preset", "--config"]),
        (["check", "nowhere"], ["nowhere"]),
        (["check"], ["DATASET_DIR"]),
        (["test", "none.safetensors", "--checkpoint", "c"], ["none.safetensors"]),
        (["config", "convert", "none.json", "out.json"], ["none.json"]),
        (["bench", "--resolution", "100"], ["--resolution", "100"]),
        (["bench", "--batch", "0"], ["--batch", "0"]),
        (["dance"], ["dance"]),
        ([], ["command"]),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None,
)  # fmt: skip
def test_wrong_input_is_one_line_and_status_2(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]
) -> None:
    assert main(arguments) == 2
    line = one_line(capsys.readouterr().err)
    assert all(word.lower() in line.lower() for word in words), line
    assert not (place / "out.json").exists()


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


def test_unexpected_error_is_one_line_but_a_traceback_with_debug(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*args: object, **more: object) -> None:
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr("lora_trainer.cli.dataset.scan", broken)
    assert main(["check", "data"]) == 1
    assert "ZeroDivisionError: division by zero" in one_line(capsys.readouterr().err)
    with pytest.raises(ZeroDivisionError):
        main(["check", "data", "--debug"])


def test_kohyas_json_brings_its_paths_along(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = {"pretrained_model_name_or_path": "base.safetensors", "train_data_dir": "data", "output_name": "fromfile",
           "output_dir": "loras"}  # fmt: skip
    (place / "kohya.json").write_text(json.dumps(KOHYA | own))
    assert main(["train", "--config", "kohya.json"]) == 0, capsys.readouterr().err
    assert (place / "loras/fromfile.safetensors").is_file()
    assert (
        main(["train", "--config", "kohya.json", "--name", "mine", "--lora-dir", "here", "--set", "network_dim=2"]) == 0
    )
    assert (place / "here/mine.safetensors").is_file()
    run = json.loads((place / "output/mine/run.json").read_text())
    assert run["config"]["network_dim"] == 2 and run["config"]["network_alpha"] == 4
    assert (
        main(["train", "--config", "output/mine/run.json", "--checkpoint", "b", "--dataset", "data", "--name", "again"])
        == 0
    )


def test_config_converts_both_ways(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "kohya.json").write_text(json.dumps(KOHYA))
    assert main(["config", "convert", "kohya.json", "ours.json"]) == 0
    ours = json.loads((place / "ours.json").read_text())
    assert (ours["network_dim"], ours["max_train_epochs"], ours["resolution"]) == (4, 1, [64, 64])
    assert main(["config", "convert", "ours.json", "back.json"]) == 0
    back = json.loads((place / "back.json").read_text())
    assert (back["network_dim"], back["max_resolution"]) == (4, "64,64")
    assert main(["config", "convert", "back.json", "again.json"]) == 0
    assert json.loads((place / "again.json").read_text()) == ours


def test_convert_says_what_our_settings_do_not_hold(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = {"pretrained_model_name_or_path": "base.safetensors", "train_data_dir": "data", "output_name": "fromfile"}
    (place / "kohya.json").write_text(json.dumps(KOHYA | own))
    assert main(["config", "convert", "kohya.json", "ours.json"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "not written" in line]
    assert len(lines) == 1
    for name, argument in zip(own, ("--checkpoint", "--dataset", "--name"), strict=True):
        assert f"{name} ({argument})" in lines[0]
    (place / "kohya.json").write_text(json.dumps(KOHYA))
    assert main(["config", "convert", "kohya.json", "ours.json"]) == 0
    assert "not written" not in capsys.readouterr().out


def test_fields_of_kohyas_json_that_training_does_not_follow_are_told(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "kohya.json").write_text(json.dumps(KOHYA | {"resume": "old", "logging_dir": "logs", "sdxl": True}))
    assert main([*TRAIN, "--name", "x", "--config", "kohya.json"]) == 0
    out = capsys.readouterr().out
    assert out.count("Note: resume isn't used") == out.count("Note: logging_dir isn't used") == 1
    assert "is for SDXL, but tiny.safetensors is SD 1.x" in out


@pytest.mark.parametrize(
    ("fields", "family", "said"),
    [
        ({"v2": True, "sdxl": False}, "sd2", False),
        ({"v2": True}, "sd1", True),
        ({"v2": False, "sdxl": False}, "sdxl", False),  # a configuration of ours, exported: it knows no checkpoint
        ({"v2": False, "sdxl": False, "pretrained_model_name_or_path": "a"}, "sdxl", True),
        ({"v2": False, "sdxl": False, "pretrained_model_name_or_path": "a"}, "sd1", False),
    ],
)
def test_family_that_contradicts_the_checkpoint(fields: dict[str, Any], family: Any, said: bool) -> None:
    assert bool(notices_on_fields(fields, "base", family)) is said
    assert not notices_on_fields(fields)


def test_options_and_presets_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "options"]) == 0
    text = capsys.readouterr().out
    assert "network_dim = 16" in text and "resolution = 512,512" in text and "One of l2, l1" in text
    assert main(["config", "options", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["min_snr_gamma"]["default"] == 0.0 and rows["resolution"]["default"] == [512, 512]
    assert main(["config", "presets"]) == 0
    assert "starter" in capsys.readouterr().out
    assert main(["config", "presets", "--json"]) == 0
    assert {"name", "help", "options"} <= set(json.loads(capsys.readouterr().out)[0])


def test_check_counts_for_people_and_programs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "data/1_zork/broken.png").write_bytes(b"no picture")
    assert main(["check", "data", "--set", "resolution=64"]) == 0
    assert "5 images" in capsys.readouterr().out
    assert main(["check", "data", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["images"], facts["samples"], len(facts["skipped"])) == (5, 5, 1)


def test_only_the_first_process_speaks(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert main(["check", "data"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["check", "nowhere"]) == 2
    assert one_line(capsys.readouterr().err).startswith("[process 1] ")


def test_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    progress = ProgressBar()
    for step in range(1, 1001):
        progress.update("Step", step, 1000)
    lines = capsys.readouterr().out.splitlines()
    assert 10 <= len(lines) <= 12 and lines[-1] == "Step 1000/1000"


def test_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    progress = ProgressBar()
    progress.update("Step", 5, 10, "loss 0.1")
    progress.note("a line")
    out = capsys.readouterr().out
    assert "\r\x1b[K██████████░░░░░░░░░░ Step 5/10  loss 0.1" in out
    assert out.endswith("\r\x1b[Ka line\n")


def test_durations_are_readable() -> None:
    assert [duration(seconds) for seconds in (0.2, 59.4, 125, 3725)] == ["0 s", "59 s", "2:05 min", "1:02:05 h"]


def test_help_works_as_a_program() -> None:
    for arguments in (["--help"], ["train", "--help"], ["test", "--help"], ["config", "convert", "--help"]):
        result = subprocess.run(
            [sys.executable, "-m", "lora_trainer", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert result.returncode == 0 and "usage: python -m lora_trainer" in result.stdout and not result.stderr


def test_output_into_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m lora_trainer config options | head -1"
    result = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.stderr == ""


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_console_that_lacks_characters_shows_others(
    place: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = place / "data/4_ゾルボ😀"
    folder.mkdir()
    next((place / "data/1_zork").glob("*.png")).rename(folder / "写真.png")
    for command in (["check", "data"], ["check", "data", "--json"], ["test", "--help"], ["check", "写真"]):
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2))
        monkeypatch.setattr("sys.stdout", out)
        monkeypatch.setattr("sys.stderr", err)
        assert main(command) == (2 if command[1] == "写真" else 0)
        err.flush()
        out.flush()
        assert b"Unicode" not in err.buffer.getvalue()
        if command[-1] == "--json":
            folders = json.loads(out.buffer.getvalue())["folders"]
            assert "ゾルボ😀" in [row["trigger"] for row in folders]
        elif command[-1] == "data":
            assert b"4_????: 1 images x 4" in out.buffer.getvalue()


def test_a_date_as_repeats_trains_its_steps(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "data/1_zork").rename(place / "data/20240115_zork")
    assert train("--set", "max_train_steps=2", "shuffle_caption=true") == 0
    out, _ = capsys.readouterr()
    assert "20240115 times per epoch" in out and "Done: 2 steps" in out


def test_a_preset_fits_itself_to_machine_and_model(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = ["--set", "max_train_steps=1", "sample_every_n_epochs=0", "clip_skip=1"]
    assert main([*TRAIN, "--name", "x", "--preset", "person", *short]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "Note: Resolution 64" in out and "Note: bucket_reso_steps 16" in out
    assert "Note: mixed_precision no: there is no CUDA GPU here." in out and "Note: Optimiser AdamW" in out
    config = json.loads((place / "output/x/run.json").read_text())["config"]
    assert (config["optimizer_type"], config["mixed_precision"], config["resolution"]) == ("AdamW", "no", [64, 64])


def test_what_is_set_wins_over_what_fits(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, "--name", "x", "--preset", "person", "--set", "mixed_precision=fp16"]) == 2
    assert "fp16" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("con", "Windows"), ("LPT1.x", "Windows"), ("x.", "ends with"), ("x ", "ends with"), ("n" * 230, "too long"),
     ("é" * 120, "too long"), ("datasets", "output folder"), ("Cache", "output folder"), ("settings", "output folder"),
     ("lora", "output folder"), ("a/b", "/ can't"), ("none", "reserved"), ("a\tb", "can't be used")],
)  # fmt: skip
def test_names_that_no_lora_can_have(place: Path, name: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(name=name) == 2
    error = one_line(capsys.readouterr().err)
    assert reason in error and "Use letters, digits" in error and len(error) < 300
    assert not (place / "lora").exists()
    assert not list((place / "output").glob("*"))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["demo", "--output", "file"], "file is a file; give a folder"),
        (["train", "--output", "file"], "file is a file; give a folder"),
        (["train", "--lora-dir", "file"], "file is a file; give a folder"),
        (["bench", "--steps", "0"], "--steps: it can't be '0'; give a whole number of at least 1"),
        (["bench", "--resolution", "100"], "--resolution: it can't be 100"),
        (["bench", "--rank", "many"], "--rank: it can't be 'many'"),
        (["test", "x", "--checkpoint", "y", "--strengths", ""], "--strengths: it is empty"),
        (["test", "x", "--checkpoint", "y", "--prompts", "missing"], "--prompts: there is no file missing"),
        (["test", "x", "--checkpoint", "y", "--steps", "0"], "--steps: it can't be '0'"),
        (["config", "convert", "k.json", "k.json"], "k.json is the file to convert"),
        (["config", "convert", "k.json", "../{here}/k.json"], "is the file to convert"),
    ],
)
def test_wrong_usage_is_said_at_once(
    place: Path, command: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "file").write_text("kept")
    (place / "k.json").write_text(json.dumps(KOHYA))
    assert main([word.format(here=place.name) for word in command]) == 2
    assert words in one_line(capsys.readouterr().err)
    assert (place / "file").read_text() == "kept" and json.loads((place / "k.json").read_text()) == KOHYA


def test_the_page_without_gradio_says_what_works(place: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "lora_trainer.ui.standalone", None)
    assert main(["ui"]) == 2
    error = one_line(capsys.readouterr().err)
    assert "make ui" in error and "pip install '.[ui]'" in error and "lora-trainer[" not in error
