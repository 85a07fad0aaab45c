"""There and back: what goes out to kohya's JSON comes in again, or is listed as lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.config import OPTIONS, OptionRow, RunConfig
from lora_trainer.errors import ConfigError
from lora_trainer.kohya import export_kohya, load_config, load_kohya, save_kohya, save_toml, to_kohya
from tests.support.kohya_form import STARTER

BLOCKS = ",".join("4" * 25)
COMPANIONS = {  # other options without which a value is refused
    "adaptive_noise_scale": {"noise_offset": 0.1}, "dim_from_weights": {"network_weights": "a"},
    "base_weights_multiplier": {"base_weights": "a,b"},
    "color_aug": {"cache_latents": False}, "random_crop": {"cache_latents": False},
    "cache_latents_to_disk": {"cache_latents": True}, "block_alphas": {"block_dims": BLOCKS},
    "conv_block_dims": {"block_dims": BLOCKS}, "conv_block_alphas": {"block_dims": BLOCKS, "conv_block_dims": BLOCKS},
    "conv_alpha": {"conv_dim": 4}, "use_tucker": {"lycoris_preset": "full"}, "dora_wd": {"lycoris_preset": "full"},
    "wd_on_output": {"lycoris_preset": "full", "dora_wd": True}, "train_norm": {"lycoris_preset": "full"},
    "factor": {"lycoris_preset": "full", "algo": "lokr"}, "full_matrix": {"lycoris_preset": "full", "algo": "lokr"},
    "decompose_both": {"lycoris_preset": "full", "algo": "lokr"}, "algo": {"lycoris_preset": "full"},
    "tlora_min_rank": {"algo": "tlora"}, "unit": {"lycoris_preset": "full", "algo": "dylora"},
    "constraint": {"lycoris_preset": "full", "algo": "diag-oft"},
    "rescaled": {"lycoris_preset": "full", "algo": "diag-oft"},
    "train_on_input": {"lycoris_preset": "full", "algo": "ia3"},
}  # fmt: skip
OTHER_VALUES: dict[str, tuple[Any, ...]] = {
    "base_weights": ("a.safetensors", "my loras/a.safetensors,b"), "base_weights_multiplier": ((0.5,), (1, 0.25)),
    "resolution": ("768,640", 1024), "block_dims": (BLOCKS,), "block_alphas": (BLOCKS,), "conv_block_dims": (BLOCKS,),
    "conv_block_alphas": (BLOCKS,), "down_lr_weight": ("sine+.25",), "mid_lr_weight": ("0.5",),
    "up_lr_weight": ("0,1",),
    "optimizer_args": ("betas=(0.9,0.99) decouple=True name=text",), "lr_scheduler_args": ("T_max=9",),
    "lr_warmup_steps": (0.1, 0.07, 0.123, 1, 250), "lr_decay_steps": (0.25, 40), "caption_prefix": ("dog",),
    "sample_prompts": ("a\nb --n c", "prompts.txt"), "keep_tokens_separator": ("|||",), "caption_separator": (";", ""),
    "extra_resolutions": ("384,256",), "training_comment": ('it\'s "fine"',), "save_state_every_n_minutes": (3,),
}  # fmt: skip
SPEAK = {"text_encoder_lr", "unet_lr", "max_train_steps", "dora_wd", "wd_on_output"}
LOST = {
    "extra_resolutions",
    "ema_decay",
    "diff_output_preservation",
    "preservation_class",
    "save_state_every_n_minutes",
    "on_divergence",
    "measure_at_saves",
    "memory_limit_gb",
    "blocks_in_cpu_memory",
    "stop_on_damage",
    "pivotal_tuning",
    "embedding_lr",
    "tlora_min_rank",
    "wd_on_output",
    "rs_lora",
    "full_matrix",
    "cache_text_encoder_outputs",
    "cache_text_encoder_outputs_to_disk",
}
LOST_IN_TOML = LOST - {"rs_lora", "full_matrix", "wd_on_output"}


def other_values(row: OptionRow) -> list[Any]:
    if row.name in OTHER_VALUES:
        return list(OTHER_VALUES[row.name])
    if row.choices:
        return [choice for choice in row.choices if choice != row.default]
    if row.type == "bool":
        return [not row.default]
    if row.type == "bool | None":
        return [True, False]
    if row.type == "str":
        return ["something"]
    low = 0 if row.minimum is None else row.minimum
    near = [low, 2, 65] if row.type == "int" else [low, 0.5, 0.0321]
    scale = row.multiple or 1
    return [value * (scale if value != low else 1) for value in near if value * scale != row.default]


@pytest.mark.parametrize("row", OPTIONS.values(), ids=list(OPTIONS))
def test_every_option_survives_the_trip_or_is_listed(row: OptionRow) -> None:
    values, trips = other_values(row), 0
    assert values
    for value in values:
        try:
            config = RunConfig().replace(**COMPANIONS.get(row.name, {}), **{row.name: value})
        except ConfigError:
            continue  # a value at its limit that another option forbids
        export = export_kohya(config)
        json.loads(json.dumps(export.data))
        back = load_kohya(export.data)
        changed = [name for name in OPTIONS if back.config.value(name) != config.value(name)]
        assert len(changed) == len(export.lost), (value, changed, export.lost)
        assert all(any(name in line for line in export.lost) for name in changed)
        assert back.notices == [] or row.name in SPEAK
        trips += row.name not in changed
    assert trips or row.name in LOST, f"{row.name} never survives"


def test_options_together_survive_the_trip() -> None:
    config = RunConfig().replace(
        noise_offset=0.05, multires_noise_iterations=6, multires_noise_discount=0, max_grad_norm=0, network_alpha=0,
        conv_dim=8, conv_alpha=2, unet_lr=1e-4, text_encoder_lr=0, learning_rate=1, optimizer_type="Prodigy",
        max_train_steps=500, max_train_epochs=3, alpha_mask=True, shuffle_caption=True, keep_tokens=1, seed=42,
        lr_scheduler="constant_with_warmup", lr_warmup_steps=0.05, network_train_unet_only=True,
    )  # fmt: skip
    export = export_kohya(config)
    assert load_kohya(export.data).config == config and export.lost == []
    for zero in ("--max_grad_norm=0", "--network_alpha=0", "--multires_noise_discount=0"):
        assert zero in export.data["additional_parameters"]  # the form drops zeros: they need the command line


def test_fields_go_out_again_and_the_starter_survives() -> None:
    starter = load_kohya(STARTER)
    fields = {"train_data_dir": "img", "sdxl": True, "output_name": "ada"}
    again = load_kohya(to_kohya(starter.config, fields))
    assert again.config == starter.config and again.notices == []
    assert {name: again.fields[name] for name in fields} == fields
    exported, original = to_kohya(starter.config), json.loads(STARTER.read_text(encoding="utf-8"))
    assert set(original) <= set(exported)  # kohya's form keeps showing old values for names that a file lacks


def test_save_kohya_writes_the_file_and_lists_what_is_lost(tmp_path: Path) -> None:
    config = RunConfig().replace(network_dim=5, save_state_every_n_minutes=3)
    lost = save_kohya(config, tmp_path / "out.json")
    assert len(lost) == 1 and "save_state_every_n_minutes" in lost[0]
    assert load_config(tmp_path / "out.json").config == config.replace(save_state_every_n_minutes=10)


def test_sdxl_text_cache_on_disk_is_carried_where_kohya_has_it() -> None:
    config = RunConfig().replace(network_train_unet_only=True, cache_text_encoder_outputs_to_disk=True)
    assert load_kohya(to_kohya(config, {"sdxl": True})).config == config
    assert to_kohya(config, {"sdxl": True})["sdxl_cache_text_encoder_outputs"] is True
    assert to_kohya(RunConfig(), {"sdxl": True})["sdxl_cache_text_encoder_outputs"] is False  # kohya would refuse it


def test_every_option_survives_the_trip_through_toml_or_is_listed(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    for row in OPTIONS.values():
        trips = 0
        for value in other_values(row):
            try:
                config = RunConfig().replace(**COMPANIONS.get(row.name, {}), **{row.name: value})
            except ConfigError:
                continue
            lost = save_toml(config, file)
            back = load_config(file)
            changed = [name for name in OPTIONS if back.config.value(name) != config.value(name)]
            assert len(changed) == len(lost), (row.name, value, changed, lost)
            assert all(any(name in line for line in lost) for name in changed)
            assert back.kind == "sd-scripts" and (back.notices == [] or row.name in SPEAK), back.notices
            trips += row.name not in changed
        assert trips or row.name in LOST_IN_TOML, f"{row.name} never survives"


def test_a_toml_says_what_sd_scripts_wants_to_hear(tmp_path: Path) -> None:
    config = RunConfig().replace(
        network_dim=8, network_alpha=4, rank_dropout=0.1, lr_warmup_steps=0.1, optimizer_args="betas=(0.9,0.99)",
        lr_scheduler="cosine_with_restarts", text_encoder_lr=5e-5, max_train_steps=300,
    )  # fmt: skip
    fields = {"train_data_dir": "C:\\my photos", "output_name": "zörk", "sdxl": True}
    assert save_toml(config, tmp_path / "a.toml", fields) == []
    text = (tmp_path / "a.toml").read_text(encoding="utf-8")
    for line in (
        r'train_data_dir = "C:\\my photos"', 'output_name = "zörk"', 'resolution = "512,512"', "network_dim = 8",
        'network_module = "networks.lora"', 'network_args = ["rank_dropout=0.1"]', "text_encoder_lr = [5e-05]",
        'optimizer_args = ["betas=(0.9,0.99)"]', "max_train_steps = 300", "lr_warmup_steps = 0.1",
        'caption_extension = ".txt"', "enable_bucket = true",
    ):  # fmt: skip
        assert line in text.splitlines(), line
    assert "save_every_n_steps" not in text and "sdxl" not in text, "sd-scripts divides by the one, and lacks the other"
    loaded = load_config(tmp_path / "a.toml")
    assert loaded.config == config and loaded.fields == {
        name: fields[name] for name in ("train_data_dir", "output_name")
    }
