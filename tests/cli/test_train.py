"""Training and testing from the command line: the files, the sentences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.tiny_host import TinyHost

from lora_trainer.cli import main
from tests.support.command_line import ROOT, SMALL, TRAIN, one_line, train


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
    assert {row["strength"] for row in report["images"] if row["kind"] == "strength"} == {
        0,
        0.2,
        0.4,
        0.6,
        0.8,
        1.0,
        1.2,
        1.4,
    }
    assert len({row["case"] for row in report["images"] if row["kind"] == "integration"}) >= 2
    assert report["trigger"] == "zork"
    rows = [report, report["recommended"], report["prompts"], report["settings"]]
    rows += [row for name in ("images", "strengths", "epochs", "cells") for row in report[name]]
    described = (ROOT / "docs/report.md").read_text(encoding="utf-8")
    assert [key for row in rows for key in row if f"`{key}`" not in described] == []
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
    assert {row["file"] for row in report["epochs"]} == {"zork-000001.safetensors", "zork.safetensors"}
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


def test_notes_on_the_network_come_before_the_first_step(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, "--name", "zork", "--set", *SMALL, "text_encoder_lr=1e-3", "unet_lr=0"]) == 0
    (place / "output/lora/zork.safetensors").rename(place / "start.safetensors")
    capsys.readouterr()
    more = ["network_weights=start.safetensors", "text_encoder_lr=1e-3"]
    assert main([*TRAIN, "--name", "next", "--set", *SMALL, *more]) == 0
    out = capsys.readouterr().out
    assert out.index("Not in start.safetensors") < out.index("Training ")


def test_a_date_as_repeats_trains_its_steps(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "data/1_zork").rename(place / "data/20240115_zork")
    assert train("--set", "max_train_steps=2", "shuffle_caption=true") == 0
    out, _ = capsys.readouterr()
    assert "20240115 times per epoch" in out and "Done: 2 steps" in out
