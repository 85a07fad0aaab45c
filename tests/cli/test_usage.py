"""Wrong usage and wrong input: one line and an exit status."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.cli import main
from tests.support.command_line import KOHYA, TRAIN, one_line, train


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


def test_unexpected_error_is_one_line_but_a_traceback_with_debug(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*args: object, **more: object) -> None:
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr("lora_trainer.cli.dataset.check", broken)
    assert main(["check", "data"]) == 1
    assert "ZeroDivisionError: division by zero" in one_line(capsys.readouterr().err)
    with pytest.raises(ZeroDivisionError):
        main(["check", "data", "--debug"])


@pytest.mark.parametrize(
    ("name", "reason"),
    [("con", "Windows"), ("COM¹", "Windows"), ("LPT1.x", "Windows"),
     ("x.", "ends with"), ("x ", "ends with"), ("n" * 230, "too long"),
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
