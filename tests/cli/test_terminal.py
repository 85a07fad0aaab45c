"""What the terminal shows."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from lora_trainer.cli import main
from lora_trainer.cli.terminal import ProgressBar, duration
from tests.support.command_line import ROOT, one_line


def test_check_counts_for_people_and_programs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "data/1_zork/broken.png").write_bytes(b"no picture")
    assert main(["check", "data", "--set", "resolution=64"]) == 0
    assert "5 images" in capsys.readouterr().out
    assert main(["check", "data", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["images"], facts["samples"], len(facts["skipped"])) == (5, 5, 1)


def test_photos_are_prepared_and_then_checked(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare = ["prepare", "data/1_zork", "set", "--trigger", "zwx", "--subject", "style"]
    assert main(prepare) == 0
    out = capsys.readouterr().out
    assert "Your originals are untouched." in out and " repeats × 10 epochs ÷ batch size 1 = " in out
    assert main(prepare) == 2 and "exists already" in one_line(capsys.readouterr().err)
    assert main(["check", "set", "--subject", "style", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["folders"][0]["trigger"] == "zwx" and "number" in {one["kind"] for one in facts["findings"]}
    assert main(["prepare", "nowhere", "set", "--trigger", "zwx", "--subject", "style"]) == 2


def test_captions_are_listed_changed_and_taken_back(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def out(*arguments: str) -> str:
        assert main(["caption", "data", *arguments]) == 0
        return capsys.readouterr().out

    before = out()
    assert len(before.splitlines()) == 5
    assert "5 captions changed; --undo takes that back." in out("--append", "photo")
    assert "     5  photo" in out("--tags").splitlines()
    assert "5 captions changed" in out("--replace", "photo", "drawing") and "drawing" in out()
    assert "taken back: “photo” replaced by “drawing”" in out("--undo")
    out("--undo")
    assert out() == before and "0 captions changed." in out("--remove", "nothing")
    assert main(["caption", "data", "--undo"]) == 2 and "no change" in one_line(capsys.readouterr().err)
    assert main(["caption", "data", "--prefix", "x", "--append", "y"]) == 2


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
            assert b"4_????: 1 image x 4" in out.buffer.getvalue()
