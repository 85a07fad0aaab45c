"""Settings on the command line: presets, files of ours and of kohya, single options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.cli import main
from lora_trainer.kohya import notices_on_fields
from tests.support.command_line import KOHYA, TRAIN, one_line


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


def test_our_settings_carry_a_dataset_files_content(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "convert", "data", "data.toml"]) == 0
    assert main(["config", "convert", "data", "data.json"]) == 0
    (place / "kohya.json").write_text(json.dumps({**KOHYA, "dataset_config": "data.toml"}))
    assert main(["config", "convert", "kohya.json", "ours.json"]) == 0
    ours = json.loads((place / "ours.json").read_text())
    assert ours["dataset_config"] == "data.toml", "by its path, or by what stands in it:"
    assert main(["train", "--dataset", "ours.json", "--checkpoint", "b", "--name", "named"]) == 0
    described = json.loads((place / "data.json").read_text())
    assert described["datasets"][0]["subsets"][0]["image_dir"] == str((place / "data" / "1_zork").absolute())
    described["datasets"][0]["subsets"][0] |= {"shuffle_caption": False, "caption_prefix": "once"}
    (place / "ours.json").write_text(json.dumps({**ours, "dataset_config": described}))
    assert (
        main(["train", "--config", "ours.json", "--checkpoint", "b", "--name", "mine", "--set", "keep_tokens=9"]) == 0
    )
    record = json.loads((place / "output/mine/run.json").read_text())
    subset = record["dataset_config"]["datasets"][0]["subsets"][0]
    assert (subset["caption_prefix"], subset["shuffle_caption"]) == ("once", False), "said outright, so it stays said"
    assert record["dataset"].endswith("ours.json") and record["config"]["keep_tokens"] == 9
    capsys.readouterr()
    # A run's own record does the same, also for a run in its place.
    again = ["train", "--config", "output/mine/run.json", "--checkpoint", "b", "--name", "mine", "--overwrite"]
    assert main(again) == 0
    repeated = json.loads((place / "output/mine/run.json").read_text())
    assert repeated["dataset_config"] == record["dataset_config"] and repeated["images"] == record["images"]
    assert main(["train", "--resume", "--name", "mine", "--checkpoint", "b", "--set", "max_train_epochs=2"]) == 0
    # For sd-scripts it becomes a file of its own.
    assert main(["config", "convert", "ours.json", "run.toml"]) == 0
    assert 'dataset_config = "run.dataset.json"' in (place / "run.toml").read_text()
    assert json.loads((place / "run.dataset.json").read_text()) == described
    (place / "there" / "mine").mkdir(parents=True)
    (place / "there" / "mine" / "a.png").touch()
    beside = {"datasets": [{"subsets": [{"image_dir": "mine"}, {"image_dir": "gone"}]}]}
    (place / "there" / "ours.json").write_text(json.dumps({**ours, "dataset_config": beside}))
    assert main(["config", "convert", "there/ours.json", "other.toml"]) == 0
    first, second = json.loads((place / "other.dataset.json").read_text())["datasets"][0]["subsets"]
    assert first["image_dir"] == str((place / "there" / "mine").absolute()), "which stands beside the other file"
    assert second["image_dir"] == "gone"
    capsys.readouterr()
    (place / "ours.json").write_text(json.dumps({**ours, "dataset_config": 3}))
    assert main(["train", "--config", "ours.json", "--checkpoint", "b", "--name", "no"]) == 2
    assert "dataset_config can't be 3; give the path or the content of a dataset file" in capsys.readouterr().err
    (place / "ours.json").write_text(json.dumps({**ours, "dataset_config": {"datasets": []}}))
    assert main(["train", "--config", "ours.json", "--checkpoint", "b", "--name", "no"]) == 2
    assert "ours.json is no dataset file: it has no [[datasets]]" in one_line(capsys.readouterr().err)


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


def test_convert_replaces_nothing_unasked(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "kohya.json").write_text(json.dumps(KOHYA))
    (place / "ours.json").write_text("mine")
    assert main(["config", "convert", "kohya.json", "ours.json"]) == 2
    assert "ours.json exists already" in capsys.readouterr().err and (place / "ours.json").read_text() == "mine"
    assert main(["config", "convert", "kohya.json", "ours.json", "--overwrite"]) == 0


def test_convert_says_what_our_settings_do_not_hold(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = {"pretrained_model_name_or_path": "base.safetensors", "train_data_dir": "data", "output_name": "fromfile"}
    (place / "kohya.json").write_text(json.dumps(KOHYA | own))
    assert main(["config", "convert", "kohya.json", "ours.json"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "not written" in line]
    assert len(lines) == 1
    for name, argument in zip(own, ("--checkpoint", "--dataset", "--name"), strict=True):
        assert f"{name} ({argument})" in lines[0]
    (place / "kohya.json").write_text(json.dumps(KOHYA))
    assert main(["config", "convert", "kohya.json", "ours.json", "--overwrite"]) == 0
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
