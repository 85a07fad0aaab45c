"""Configuration files of every kind are told apart; broken ones are one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lora_trainer.config import RunConfig
from lora_trainer.errors import ConfigError, FileError, LoraTrainerError
from lora_trainer.kohya import load_config, load_kohya, notices_on_fields
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
        with pytest.raises(LoraTrainerError) as caught:
            load_config(file)
        assert all(word in str(caught.value) for word in words), caught.value
        assert "\n" not in str(caught.value)
    with pytest.raises(FileError, match="missing"):
        load_config(tmp_path / "missing.json")


@pytest.mark.parametrize("name", ["config.yml", "config.YAML"])
def test_other_formats_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('network_dim = 4\nresolution = "64,64"\n')
    with pytest.raises(ConfigError, match=rf"{name} is a {name[7:].upper()} file, which isn't read; give a JSON file"):
        load_config(tmp_path / name)
    with pytest.raises(FileError, match="check the path"):
        load_config(tmp_path / "none.yml")


TOML = """\ufeff[model]
pretrained_model_name_or_path = "a.safetensors"
[network_arguments]
network_module = "lycoris.kohya"
network_dim = 8
network_args = ["algo=loha", "preset=attn-mlp", "conv_dim=0"]
[training]
resolution = "64,64"
max_train_epochs = 4
learning_rate = 1e-4
text_encoder_lr = [5e-5, 5e-5]
"""


def test_a_config_file_of_sd_scripts_is_read(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(TOML, encoding="utf-8")
    loaded = load_config(tmp_path / "run.toml")
    assert loaded.kind == "sd-scripts" and loaded.fields == {"pretrained_model_name_or_path": "a.safetensors"}
    network, rates = loaded.config.network, loaded.config.optimizer
    assert (network.algo, network.network_dim, network.lycoris_preset) == ("loha", 8, "attn-mlp")
    assert (rates.learning_rate, rates.text_encoder_lr, rates.max_train_epochs) == (1e-4, 5e-5, 4)


def test_a_config_file_without_sections_is_sd_scripts_too(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('learning_rate = 1e-4\nresolution = "64,64"\n', encoding="utf-8")
    loaded = load_config(tmp_path / "run.toml")
    assert loaded.kind == "sd-scripts" and loaded.config.schedule.lr_scheduler == "constant"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"network_dim = = 4", r"run\.toml is no valid TOML: .*line 1, column 15"),
        (
            b'network_dimm = 4\nresolution = "64,64"',
            r"run\.toml, line 1: Unknown option 'network_dimm'; did you mean network_dim",
        ),
        (b"network_alpha = 4\nnetwork_dim = 'x'\n", r"run\.toml, line 2: network_dim can't be 'x'"),
        (b"[network]\n\nnetwork_dim = 'x'\n", r"run\.toml, line 3: network_dim can't be 'x'"),
        (b'["network"]\n\n"network_dim" = "x"\n', r"run\.toml, line 3: network_dim can't be 'x'"),
        (b"seed = 1\nnetwork.network_dim = 'x'\n", r"run\.toml, line 2: network_dim can't be 'x'"),
        (
            b'network_module = "lycoris.kohya"\nnetwork_args = [\n  "algo=glora",\n]\n',
            r"isn't possible here: in line 2 network_args algo=glora \(choose",
        ),
        (b'seed = 1\nnetwork_args = ["conv_dim=x"]\n', r"run\.toml, line 2: network_args conv_dim can't be 'x'"),
        (b'seed = 1\nnetwork_args = ["conv_dim"]\n', r"run\.toml, line 2: network_args has 'conv_dim'; write"),
        (b'seed = 1\nnetwork_module = "networks.x"\n', r"isn't possible here: in line 2 network_module networks\.x"),
        (
            b"seed = 1\nnetwork_train_unet_only = true\nnetwork_train_text_encoder_only = true\n",
            r"run\.toml, line 2: network_train_unet_only and .* can't both be on",
        ),
        (b"[[datasets]]\nresolution = 64", r"run\.toml is a dataset file .*--dataset"),
        (b"\xff\xfe", r"Can't read run\.toml: it is no UTF-8 text"),
    ],
)
def test_a_toml_with_a_mistake_is_refused_in_one_sentence(tmp_path: Path, text: bytes, words: str) -> None:
    (tmp_path / "run.toml").write_bytes(text)
    with pytest.raises(LoraTrainerError, match=words):
        load_config(tmp_path / "run.toml")
    with pytest.raises(FileError, match="Can't read none"):
        load_config(tmp_path / "none.toml")


def test_what_a_page_does_not_take_from_a_file_is_said() -> None:
    fields = {
        "resume": "old", "logging_dir": "logs", "output_dir": "out", "vae": "best.vae.pt", "sdxl": True,
        "pretrained_model_name_or_path": "C:\\models\\photo.safetensors",
    }  # fmt: skip
    lines = notices_on_fields(fields, "tiny.safetensors", "sd1", loaded=True)
    for name in ("resume", "logging_dir", "output_dir", "vae"):
        assert sum(line.startswith(f"{name} isn't used: ") for line in lines) == 1
    assert any("names the checkpoint photo.safetensors, but training uses tiny.safetensors" in line for line in lines)
    assert any("is for SDXL, but tiny.safetensors is SD 1.x" in line for line in lines)
    assert len(lines) == 6
    same = {"pretrained_model_name_or_path": "tiny.safetensors"}
    assert notices_on_fields(same, "tiny.safetensors", loaded=True) == []
    assert len(notices_on_fields(fields)) == 2, "on the command line the others are used"


def test_a_dataset_file_takes_the_place_of_the_folders() -> None:
    given = {"dataset_config": "data.toml", "train_data_dir": "img", "reg_data_dir": "reg", "resolution": "512"}
    loaded = load_config(given)
    assert loaded.fields == {"dataset_config": "data.toml"} and loaded.config.dataset.reg_data_dir == ""
    assert loaded.notices == ["No effect: train_data_dir, reg_data_dir (dataset_config says which images are used)."]
