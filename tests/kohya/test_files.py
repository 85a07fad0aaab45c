"""Configuration files of every kind are told apart; broken ones are one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lora_trainer.config import RunConfig
from lora_trainer.errors import ConfigError, FileError
from lora_trainer.kohya import load_config, load_kohya
from tests.support.kohya_form import STARTER


def test_flat_sd_scripts_configuration_has_sd_scripts_defaults() -> None:
    loaded = load_config(
        {"network_arguments": {"network_module": "networks.lora", "network_dim": 32, "network_args": ["conv_dim=8"]},
         "unet_lr": 1e-4, "max_train_epochs": 5, "max_train_steps": 1600, "resolution": "640", "lr_warmup_steps": 0,
         "optimizer_args": ["weight_decay=0.1"], "train_data_dir": "img", "text_encoder_lr": [5e-5, 5e-5]}
    )  # fmt: skip
    assert loaded.kind == "sd-scripts" and loaded.notices == [] and loaded.fields == {"train_data_dir": "img"}
    config = loaded.config
    assert (config.optimizer.max_train_epochs, config.optimizer.max_train_steps) == (5, 0)
    assert config.network.conv_dim == 8 and config.network.network_alpha == 1
    assert config.optimizer.learning_rate == 2e-6 and config.text_encoder_rate == 5e-5
    assert config.schedule.lr_scheduler == "constant" and config.caption.caption_extension == ".caption"
    assert not config.dataset.enable_bucket and not config.memory.cache_latents
    assert config.optimizer.optimizer_args == {"weight_decay": 0.1}
    assert load_config({"train_data_dir": "img", "resolution": 512}).config.optimizer.max_train_steps == 1600


def test_own_files_and_run_json_are_told_apart(tmp_path: Path) -> None:
    config = RunConfig().replace(network_dim=3, optimizer_args="betas=0.9,0.99")
    own, run, short = tmp_path / "own.json", tmp_path / "run.json", tmp_path / "short.json"
    own.write_text(json.dumps(config.to_dict()), encoding="utf-8")
    run.write_text(json.dumps({"name": "ada", "config": config.to_dict()}), encoding="utf-8")
    short.write_text("\ufeff" + json.dumps({"network_dim": 3}), encoding="utf-8")
    assert load_config(own).config == load_config(run).config == config
    assert load_config(own).kind == "own" and load_config(STARTER).kind == "kohya"
    assert load_config(short).config == RunConfig().replace(network_dim=3)
    assert load_config(STARTER).config == load_kohya(STARTER).config


def test_broken_files_are_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "broken.json"
    for content, words in (
        (b'{\n "epoch": 1,\n "network_dim" 8\n}', ("broken.json", "line 3")),
        (b"", ("broken.json", "line 1")),
        (b"[1, 2]", ("broken.json", "object")),
        (b"\xff\xfe\x00", ("broken.json", "UTF-8")),
        (b'{"version": 1, "network_dim": "x"}', ("broken.json", "network_dim")),
        (b'{"LoRA_type": "Standard", "network_dim": "x"}', ("broken.json", "network_dim")),
        (b'{"LoRA_type": "Standard", "max_resolution": "big"}', ("broken.json", "max_resolution")),
    ):
        file.write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            load_config(file)
        assert all(word in str(caught.value) for word in words), caught.value
        assert "\n" not in str(caught.value)
    with pytest.raises(FileError, match="missing"):
        load_config(tmp_path / "missing.json")
