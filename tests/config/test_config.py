"""The option table: reading, checking, saving; contradictions are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.config import MIGRATIONS, OPTIONS, VERSION, NetworkConfig, RunConfig, parse_assignments
from lora_trainer.config.documentation import BEGIN, END, options_table, renewed
from lora_trainer.config.values import OTHER_NAMES, argument_text, arguments
from lora_trainer.errors import ConfigError

OPTIONS_PAGE = Path(__file__).resolve().parents[2] / "docs" / "options.md"


def refused(**values: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        RunConfig().replace(**values)
    return str(caught.value)


def test_every_option_has_help_and_a_default_that_its_own_row_allows() -> None:
    for row in OPTIONS.values():
        assert row.help.endswith((".", "…")) and "\n" not in row.help, row.name
        RunConfig().replace(**{row.name: row.default})
    assert RunConfig().value("network_dim") == RunConfig().network.network_dim


def test_json_trip_keeps_every_value_and_its_type() -> None:
    config = RunConfig().replace(
        optimizer_type="prodigy",
        optimizer_args="betas=(0.9, 0.99) decouple=True name='a b' nested={'x':[1,2]}",
        block_dims=",".join(["4"] * 25),
        resolution="768,512",
        unet_lr="",
        text_encoder_lr=0,
        v_parameterization=True,
        seed=2**53 + 1,
    )
    again = RunConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert again.optimizer.optimizer_args == {
        "betas": (0.9, 0.99), "decouple": True, "name": "a b", "nested": {"x": (1, 2)},
    }  # fmt: skip
    assert again.optimizer.unet_lr is None and again.optimizer.text_encoder_lr == 0.0
    assert again.dataset.resolution == (768, 512) and again.optimizer.seed == 2**53 + 1
    assert not again.trains_text_encoder and again.trains_unet


def test_to_dict_is_a_copy() -> None:
    config = RunConfig().replace(optimizer_args="weight_decay=0.1")
    config.to_dict()["optimizer_args"]["weight_decay"] = 9
    assert config.optimizer.optimizer_args == {"weight_decay": 0.1}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("network_dim", "64.0", 64),
        ("flip_aug", "True", True),
        ("flip_aug", 1.0, True),
        ("lr_warmup_steps", "10%", 0.1),
        ("resolution", "640", (640, 640)),
        ("resolution", [640, 512], (640, 512)),
        ("seed", "9007199254740993", 9007199254740993),
        ("mid_lr_weight", 0.5, "0.5"),
        ("min_snr_gamma", "5", 5.0),
    ],
)
def test_texts_are_read_as_the_options_type(name: str, text: Any, value: Any) -> None:
    read = RunConfig().replace(**{name: text}).value(name)
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"network_dim": 0}, ("network_dim", "0", "1")),
        ({"network_dim": "2.5"}, ("network_dim", "2.5", "whole")),
        ({"network_dim": True}, ("network_dim", "True")),
        ({"learning_rate": "nan"}, ("learning_rate", "finite")),
        ({"learning_rate": "fast"}, ("learning_rate", "fast", "number")),
        ({"flip_aug": "maybe"}, ("flip_aug", "maybe")),
        ({"loss_type": "l3"}, ("loss_type", "l3", "huber")),
        ({"bucket_reso_steps": 60}, ("bucket_reso_steps", "60", "8")),
        ({"resolution": "512-512"}, ("resolution", "512-512")),
        ({"optimizer_args": "betas=(0.9"}, ("optimizer_args", "key=value")),
        ({"block_dims": "4,4"}, ("block_dims", "2", "25", "23")),
        ({"down_lr_weight": "cosin"}, ("down_lr_weight", "cosin", "cosine")),
        ({"netwrok_dim": 8}, ("netwrok_dim", "network_dim")),
        ({"lr_warmup_steps": 1.5}, ("lr_warmup_steps", "1.5")),
    ],
)
def test_bad_values_are_refused_with_the_option_and_the_remedy(values: dict[str, Any], words: tuple[str, ...]) -> None:
    sentence = refused(**values)
    assert all(word in sentence for word in words), sentence
    assert sentence.endswith((".", "?")) and "\n" not in sentence


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"min_timestep": 500, "max_timestep": 500}, ("min_timestep", "max_timestep")),
        ({"adaptive_noise_scale": 0.1}, ("adaptive_noise_scale", "noise_offset")),
        ({"network_train_unet_only": 1, "network_train_text_encoder_only": 1}, ("network_train_unet_only",)),
        ({"unet_lr": 0, "text_encoder_lr": 0}, ("unet_lr", "text_encoder_lr")),
        ({"network_train_unet_only": 1, "unet_lr": 0}, ("unet_lr",)),
        ({"max_train_epochs": 0}, ("max_train_steps", "max_train_epochs")),
        ({"dim_from_weights": 1}, ("network_weights",)),
        ({"cache_latents_to_disk": 1, "cache_latents": 0}, ("cache_latents",)),
        ({"color_aug": 1}, ("color_aug", "cache_latents")),
        ({"random_crop": 1}, ("random_crop", "cache_latents")),
        ({"lr_scheduler": "constant", "lr_warmup_steps": 10}, ("lr_warmup_steps", "or choose constant_with_warmup.")),
        ({"optimizer_type": "Adafactor", "lr_warmup_steps": 10}, ("Adafactor", "lr_warmup_steps")),
        ({"lr_scheduler_type": "StepLR", "lr_warmup_steps": 0.1}, ("StepLR", "lr_warmup_steps to 0.")),
        ({"bucket_no_upscale": 0, "min_bucket_reso": 1024, "max_bucket_reso": 512}, ("min_bucket_reso",)),
        ({"bucket_no_upscale": 0, "resolution": 64}, ("resolution", "min_bucket_reso")),
        ({"enable_bucket": 0, "resolution": "512,650"}, ("650", "enable_bucket")),
        ({"conv_block_dims": ",".join("4" * 25)}, ("conv_block_dims", "block_dims")),
        ({"optimizer_type": "Prodigy", "loraplus_lr_ratio": 16}, ("Prodigy", "loraplus_lr_ratio")),
    ],
)
def test_contradictions_name_the_options(values: dict[str, Any], names: tuple[str, ...]) -> None:
    sentence = refused(**values)
    assert all(name in sentence for name in names), sentence


def test_allowed_neighbours_of_the_contradictions() -> None:
    RunConfig().replace(color_aug=True, cache_latents=False)
    RunConfig().replace(lr_scheduler="constant_with_warmup", lr_warmup_steps=0.1)
    RunConfig().replace(optimizer_type="Adafactor", optimizer_args="relative_step=False", lr_warmup_steps=10)
    RunConfig().replace(bucket_no_upscale=False)
    RunConfig().replace(resolution=64)  # the embedded demo: sizes below min_bucket_reso need no upscaling
    RunConfig().replace(down_lr_weight="sine+.25", mid_lr_weight="1", up_lr_weight="0,0.5,1")
    RunConfig().replace(block_dims=",".join("4" * 23), conv_block_dims=",".join("2" * 23))


def test_groups_check_themselves_too() -> None:
    with pytest.raises(ConfigError, match="network_dim"):
        NetworkConfig(network_dim=-1)


def test_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    for version in (VERSION + 1, 0, "1", True):
        with pytest.raises(ConfigError, match="version"):
            RunConfig.from_dict({"version": version})
    monkeypatch.setattr("lora_trainer.config.run.VERSION", 2)
    monkeypatch.setitem(MIGRATIONS, 1, lambda old: {"network_dim": old["rank"]})
    assert RunConfig.from_dict({"version": 1, "rank": 4}).network.network_dim == 4


def test_kohyas_name_of_an_option_leads_to_ours() -> None:
    assert refused(network_module="networks.dylora").endswith("that is kohya's name; here it is algo.")
    assert all(said.partition(" ")[0].strip(",") in OPTIONS for said in OTHER_NAMES.values())
    assert not OTHER_NAMES.keys() & OPTIONS.keys()


def test_parse_assignments() -> None:
    values = parse_assignments(
        ["--network_dim=16", "optimizer_args=weight_decay=0.1 betas=0.9,0.99", "unet_lr=", "network_dim = 8"]
    )
    assert values == {"network_dim": 8, "optimizer_args": {"weight_decay": 0.1, "betas": (0.9, 0.99)}, "unet_lr": None}
    for bad, word in (("network_dim", "name=value"), ("rank=4", "rank"), ("network_dim=big", "big")):
        with pytest.raises(ConfigError, match=word):
            parse_assignments([bad])


@pytest.mark.parametrize(
    "values", [{}, {"a": 1}, {"betas": (0.9, 0.99), "b": None}, {"c": "1"}, {"c": "a, b"}, {"c": "it's"}, {"d": -1e-9}]
)
def test_argument_text_is_read_back(values: dict[str, Any]) -> None:
    assert arguments(argument_text(values)) == values


@pytest.mark.parametrize(("text", "number"), [("16.0", 16), (" 16 ", 16), ("+16", 16), (16.0, 16), ("1.6e1", 16)])
def test_whole_numbers_in_any_writing(text: object, number: int) -> None:
    assert RunConfig().replace(network_dim=text).network.network_dim == number
    assert "whole number" in refused(network_dim="16.5")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"betas": (0.9, 0.99), "b": None}, "betas=(0.9,0.99) b=None"),
        ({"c": "a, b"}, "c='a, b'"),  # a space of the value's own stays
        ({"c": "it's"}, 'c="it\'s"'),
    ],
)
def test_argument_text_is_one_word_per_argument(values: dict[str, Any], text: str) -> None:
    assert argument_text(values) == text


@pytest.mark.parametrize("text", ["a=9223372036854775808", "a={'x':(1,-9223372036854775808)}"])
def test_numbers_beyond_any_use_are_refused_wherever_they_stand(text: str) -> None:
    with pytest.raises(ValueError, match=r"^$"):
        arguments(text)


def test_options_table_names_every_option_with_its_default() -> None:
    table = options_table()
    for row in OPTIONS.values():
        assert table.count(f"| `{row.name}` |") == 1
    assert "| `network_dim` | 16 |" in table
    assert all(line.count("|") - line.count("\\|") == 5 for line in table.splitlines() if line.startswith("|"))


def test_the_page_of_options_is_the_table() -> None:
    text = OPTIONS_PAGE.read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1, "docs/options.md has no table of options"
    assert renewed(text) == text, "docs/options.md is older than the table of options; make options writes it anew"
