"""kohya's configurations, both ways: meaning, recognition of every name, refusals, and the trip there and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.config import OPTIONS, OptionRow, RunConfig
from lora_trainer.errors import ConfigError, FileError
from lora_trainer.kohya import export_kohya, load_config, load_kohya, save_kohya, to_kohya

DATA = Path(__file__).parent / "data"
STARTER = DATA / "kohya_starter.json"
NAMES = (DATA / "kohya_names.txt").read_text(encoding="utf-8").split()  # all that the LoRA form ever wrote
FORM = {
    "LoRA_type": "Standard",
    "max_resolution": "512,512",
    "lr_warmup": 0,
    "epoch": 10,
}  # what makes it a form's file


def form(**values: Any) -> RunConfig:
    return load_kohya({**FORM, **values}).config


def notices(**values: Any) -> list[str]:
    return load_kohya({**FORM, **values}).notices


def refused(values: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        load_kohya(values)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith((".", "?")), sentence
    return sentence


# the starter configuration ------------------------------------------------------------------------------------------


def test_the_starter_configuration_loads_unchanged_and_means_what_it_means_there() -> None:
    loaded = load_kohya(STARTER)
    assert loaded.notices == [] and loaded.fields == {}
    expected = RunConfig().replace(
        bucket_no_upscale=True, bucket_reso_steps=64, cache_latents=True, caption_extension=".txt", clip_skip=2,
        enable_bucket=True, max_train_epochs=10, max_train_steps=0, gradient_accumulation_steps=1,
        gradient_checkpointing=True, learning_rate=5e-5, unet_lr=5e-5, text_encoder_lr=5e-5, lr_scheduler="cosine",
        lr_warmup_steps=0, resolution=(512, 512), max_token_length=75, mixed_precision="fp16", network_alpha=16,
        network_dim=32, conv_dim=0, optimizer_type="AdamW8bit", prior_loss_weight=1, save_every_n_epochs=2,
        save_precision="fp16", seed=1234, train_batch_size=1,
        sample_at_first=False,
    )  # fmt: skip
    assert loaded.config == expected
    assert loaded.config.trains_unet and loaded.config.trains_text_encoder


# every name ---------------------------------------------------------------------------------------------------------

SPECIAL_VALUES = {
    "LoRA_type": "Kohya LoCon", "additional_parameters": "--min_snr_gamma 5", "noise_offset_type": "Multires",
    "network_train": "Unet only", "save_model_as": "ckpt", "max_resolution": "640,640", "lr_scheduler": "linear",
    "optimizer": "Lion", "optimizer_args": "weight_decay=0.1", "lr_scheduler_args": "T_max=9", "loss_type": "l1",
    "huber_schedule": "constant", "mixed_precision": "bf16", "save_precision": "bf16", "max_token_length": "150",
    "down_lr_weight": "cosine", "mid_lr_weight": "0.5", "up_lr_weight": "sine", "xformers": "sdpa",
    "text_encoder_lr": 0.5, "unet_lr": "0.5", "learning_rate": "0.5", "caption_extension": ".cap", "seed": "7",
    "block_dims": ",".join("3" * 25), "block_alphas": ",".join("3" * 25), "conv_block_dims": ",".join("3" * 25),
    "conv_dims": ",".join("3" * 25), "conv_block_alphas": ",".join("3" * 25), "conv_alphas": ",".join("3" * 25),
    "sdxl_max_timestep": 900, "max_timestep": 900, "max_train_steps": "3", "max_train_epochs": "3",
    "cache_latent": False,
}  # fmt: skip
NEEDS = {  # other keys without which a name has no say
    "conv_dim": {"LoRA_type": "Kohya LoCon"}, "conv_alpha": {"LoRA_type": "Kohya LoCon"},
    "adaptive_noise_scale": {"noise_offset": 0.1}, "dim_from_weights": {"network_weights": "a.safetensors"},
    "multires_noise_iterations": {"noise_offset_type": "Multires"},
    "multires_noise_discount": {"noise_offset_type": "Multires"},
    "noise_offset_type": {"multires_noise_iterations": 6, "noise_offset": 0.1},
    "block_alphas": {"down_lr_weight": "cosine"}, "conv_block_dims": {"down_lr_weight": "cosine"},
    "conv_dims": {"down_lr_weight": "cosine"},
    "conv_block_alphas": {"down_lr_weight": "cosine", "conv_block_dims": ",".join("3" * 25)},
    "conv_alphas": {"down_lr_weight": "cosine", "conv_block_dims": ",".join("3" * 25)},
    "color_aug": {"cache_latents": False}, "random_crop": {"cache_latents": False},
}  # fmt: skip
SILENT = {"sdxl_cache_text_encoder_outputs", "cache_text_encoder_outputs"}  # we cache anyway: the result is the same
SPEAK_EMPTY = {"caption_extension", "caption_extention", "unet_lr", "text_encoder_lr"}  # empty means something there


def telling_value(name: str) -> Any:
    """A value that isn't the default, so that it must show somewhere."""
    row: OptionRow | None = OPTIONS.get(name)
    if name in SPECIAL_VALUES:
        return SPECIAL_VALUES[name]
    if row is None:
        return "3"
    if row.type.startswith("bool"):
        return not row.default
    return "x" if row.type == "str" else str(int(row.default or 0) + 64 if row.multiple else 0.5)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_recognised_empty_or_not(name: str) -> None:
    """Empty, it says nothing; with a value it takes effect, or is returned, reported, or refused by name."""
    rates = {"unet_lr": 1e-4, "text_encoder_lr": 1e-4}
    empty = load_kohya({**FORM, **rates} | ({} if name in ("max_resolution", "epoch") else {name: ""}))
    assert empty.notices == [] or name in SPEAK_EMPTY
    around = {**FORM, **NEEDS.get(name, {})}
    before = load_kohya(around)
    value: Any = telling_value(name)
    for attempt in (value, True, "3", 64, ".cap"):
        try:
            after = load_kohya({**around, name: attempt})
        except ConfigError as error:
            if "can't be" in str(error):
                continue  # a wrong kind of value for this name: try the next
            assert name in str(error)
            return
        if name in OPTIONS and name not in SILENT:
            assert after.config.value(name) != before.config.value(name)
            return
        if after.config != before.config or name in after.fields or any(name in line for line in after.notices):
            return
    assert name in SILENT, f"{name} leaves no trace"


def test_the_list_of_names_is_whole() -> None:
    assert len(NAMES) == len(set(NAMES)) >= 307


def test_groups_of_names_without_effect_are_one_line_each() -> None:
    lines = notices(
        max_data_loader_n_workers=8, persistent_data_loader_workers=True, xformers="sdpa", mem_eff_attn=True,
        huggingface_token="secret-token", wandb_api_key="secret-key", log_with="wandb", num_processes=2,
        stop_text_encoder_training=50, lumina_system_prompt="x", blocks_to_swap=18, conv_dim=32, save_state=True,
    )  # fmt: skip
    assert len(lines) == 8
    assert not any("secret" in line for line in lines)
    speed = next(line for line in lines if "xformers" in line)
    assert all(
        name in speed for name in ("max_data_loader_n_workers", "persistent_data_loader_workers", "mem_eff_attn")
    )


def test_form_defaults_and_off_values_are_not_worth_a_word() -> None:
    assert notices(
        factor=-1, train_on_input=True, unit=1, conv_dim=1, conv_alpha="1", xformers=True, num_processes="1",
        num_cpu_threads_per_process=2.0, LyCORIS_preset="full", max_data_loader_n_workers="0", full_fp16="False",
        weighted_captions=False, dataset_config="", save_model_as="safetensors", t5xxl_max_token_length=512,
        multires_noise_discount=0.3, model_list="custom", guidance_scale=None,
    ) == []  # fmt: skip


# what isn't offered -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["full_fp16", "full_bf16", "fp8_base", "weighted_captions", "train_inpainting", "flux1_checkbox", "locon"]
)
def test_switches_that_are_not_offered_are_refused_by_name_only_when_on(name: str) -> None:
    assert name in refused({**FORM, name: True})
    assert form(**{name: False}) == form()


def test_all_that_is_not_offered_comes_in_one_sentence() -> None:
    sentence = refused({**FORM, "LoRA_type": "LyCORIS/LoHa", "fp8_base": True, "dataset_config": "a.toml"})
    assert all(word in sentence for word in ("LoRA_type LyCORIS/LoHa", "Standard", "fp8_base", "dataset_config"))


def test_other_lora_types_and_formats() -> None:
    for kind in ("LoCon", "LyCORIS/LoCon", "LoRA-FA", "Kohya DyLoRA", "Kohya LoKr", "Flux1"):
        assert kind in refused({**FORM, "LoRA_type": kind})
    assert "ckpt" in refused({**FORM, "save_model_as": "ckpt"})
    assert form(save_model_as="diffusers") == form()  # the form itself turns it into safetensors


def test_unknown_names_are_refused_with_the_nearest() -> None:
    sentence = refused({**FORM, "netwrok_dim": 8, "foo_bar": 1})
    assert "netwrok_dim" in sentence and "network_dim" in sentence and "foo_bar" in sentence


@pytest.mark.parametrize(
    ("data", "tab"),
    [
        ({"learning_rate_te": "1e-5", "max_resolution": "512,512", "epoch": 1}, "Dreambooth"),
        ({"learning_rate_te1": 0, "learning_rate_te2": 0, "max_resolution": "512,512"}, "Dreambooth"),
        ({"num_vectors_per_token": 8, "token_string": "x", "max_resolution": "512,512"}, "Textual Inversion"),
        ({"pretrained_model_name_or_path": "a", "max_resolution": "512,512", "optimizer": "AdamW"}, "Dreambooth"),
    ],
)
def test_files_of_other_tabs_are_recognised(data: dict[str, Any], tab: str) -> None:
    assert tab in refused(data)


# numbers, empties, old names ----------------------------------------------------------------------------------------


def test_numbers_as_strings() -> None:
    config = form(
        network_dim="64.0", network_alpha="1", learning_rate="1e-05", seed="", keep_tokens="2", noise_offset="0.05",
        train_batch_size="4", gradient_accumulation_steps="2.0", caption_dropout_every_n_epochs="3.0",
        max_token_length="225", clip_skip="2", min_snr_gamma="5", bucket_reso_steps=64.0,
    )  # fmt: skip
    assert config == RunConfig.from_dict(
        form().to_dict()
        | {"network_dim": 64, "network_alpha": 1, "learning_rate": 1e-5, "seed": 0, "keep_tokens": 2,
           "noise_offset": 0.05, "train_batch_size": 4, "gradient_accumulation_steps": 2,
           "caption_dropout_every_n_epochs": 3, "max_token_length": 225, "clip_skip": 2, "min_snr_gamma": 5}
    )  # fmt: skip


def test_empty_values_are_the_trainers_defaults() -> None:
    config = form(
        lr_scheduler_num_cycles="", lr_scheduler_power="", max_token_length="", clip_skip="", max_grad_norm="",
        network_dim="", save_precision="", noise_offset="", vae_batch_size=0, gradient_accumulation_steps=0, huber_c=0,
    )  # fmt: skip
    assert config.schedule.lr_scheduler_num_cycles == 1 and config.schedule.lr_scheduler_power == 1
    assert config.caption.max_token_length == 75 and config.caption.clip_skip == 1
    assert config.optimizer.max_grad_norm == 1 and config.optimizer.gradient_accumulation_steps == 1
    assert config.network.network_dim == 4 and config.save.save_precision == "float"
    assert config.loss.noise_offset == 0 and config.loss.huber_c == 0.1 and config.memory.vae_batch_size == 1
    empty_extension = load_kohya({**FORM, "caption_extension": ""})
    assert empty_extension.config.caption.caption_extension == ".caption"
    assert any("caption_extension" in line for line in empty_extension.notices)


def test_null_says_nothing() -> None:
    assert load_kohya({**FORM, **dict.fromkeys(["network_dim", "seed", "unet_lr", "vae", "max_train_steps"])}) == (
        load_kohya(FORM)
    )


def test_zeros_stay_zeros() -> None:
    config = form(max_grad_norm=0, prior_loss_weight="0", lr_scheduler_power=0, network_alpha=0)
    assert config.optimizer.max_grad_norm == 0 and config.dataset.prior_loss_weight == 0
    assert config.schedule.lr_scheduler_power == 0 and config.network.network_alpha == 0
    multires = form(noise_offset_type="Multires", multires_noise_iterations=6, multires_noise_discount=0)
    assert multires.loss.multires_noise_discount == 0
    assert "network_dim" in refused({**FORM, "network_dim": 0})


def test_old_names() -> None:
    assert form(lora_network_weights="a.safetensors").network.network_weights == "a.safetensors"
    assert form(lora_network_weights="", network_weights="b").network.network_weights == "b"
    assert form(network_weights="", lora_network_weights="a").network.network_weights == "a"
    assert form(caption_extention=".cap").caption.caption_extension == ".cap"
    assert form(cache_latent=False).memory.cache_latents is False
    assert form(sdxl_min_timestep="100", sdxl_max_timestep=900).loss.max_timestep == 900
    assert form(use_8bit_adam=True).optimizer.optimizer_type == "AdamW8bit"
    assert form(use_8bit_adam=True, optimizer="Lion").optimizer.optimizer_type == "Lion"
    assert form().optimizer.optimizer_type == "AdamW"  # a file without optimizer is from before it existed
    assert form(network_train="Text encoder only").network.network_train_text_encoder_only


# rules --------------------------------------------------------------------------------------------------------------


def test_epoch_counts_when_there_is_no_step_count() -> None:
    for none in ({}, {"max_train_steps": ""}, {"max_train_steps": 0, "max_train_epochs": "0"}):
        config = form(epoch="3", **none)
        assert (config.optimizer.max_train_epochs, config.optimizer.max_train_steps) == (3, 0)
    steps = load_kohya({**FORM, "epoch": 3, "max_train_steps": "500"})
    assert steps.config.optimizer.max_train_steps == 500 and any("epoch" in line for line in steps.notices)
    both = load_kohya({**FORM, "epoch": 3, "max_train_steps": 500, "max_train_epochs": "7"})
    assert (both.config.optimizer.max_train_epochs, both.config.optimizer.max_train_steps) == (7, 0)
    assert any("max_train_steps" in line for line in both.notices)
    assert load_kohya({"LoRA_type": "Standard"}).config.optimizer.max_train_steps == 1600  # as the form shows it


def test_rates_of_zero() -> None:
    unet_only = load_kohya({**FORM, "text_encoder_lr": "0.0", "unet_lr": 1e-4})
    assert unet_only.config.trains_unet and not unet_only.config.trains_text_encoder
    assert any("text encoder" in line for line in unet_only.notices)
    text_only = form(text_encoder_lr=1e-4, unet_lr="")
    assert text_only.trains_text_encoder and not text_only.trains_unet
    both = form(text_encoder_lr=0, unet_lr="0", learning_rate=3e-4)
    assert both.unet_rate == both.text_encoder_rate == 3e-4
    assert form(text_encoder_lr=[2e-5, 2e-5], unet_lr=1e-4).text_encoder_rate == 2e-5
    unsaid = form(learning_rate=3e-4)
    assert unsaid.unet_rate == unsaid.text_encoder_rate == 3e-4
    assert "unet_lr" in refused({**FORM, "text_encoder_lr": 0, "unet_lr": 0, "learning_rate": ""})


def test_warm_up() -> None:
    assert form(lr_warmup="10").schedule.lr_warmup_steps == 0.1
    assert form(lr_warmup=10, lr_warmup_steps="25").schedule.lr_warmup_steps == 25
    assert 0.99 < form(lr_warmup=100).schedule.lr_warmup_steps < 1
    without_lr_warmup = {name: value for name, value in FORM.items() if name != "lr_warmup"}
    assert load_kohya(without_lr_warmup).config.schedule.lr_warmup_steps == 0.1  # what the form shows
    assert "lr_warmup" in refused({**FORM, "lr_warmup": 150})
    dropped = load_kohya({**FORM, "lr_scheduler": "constant", "lr_warmup": 10})
    assert dropped.config.schedule.lr_warmup_steps == 0 and any("warm-up" in line for line in dropped.notices)
    adafactor = {"optimizer": "Adafactor", "lr_warmup": 10}
    assert form(**adafactor).schedule.lr_warmup_steps == 0  # its own relative rates have no warm-up
    assert form(**adafactor, optimizer_args="relative_step=False").schedule.lr_warmup_steps == 0.1
    kept = form(lr_scheduler="constant_with_warmup", lr_warmup=10)
    assert kept.schedule.lr_warmup_steps == 0.1


def test_noise_offset_type_decides() -> None:
    values = {"noise_offset": 0.05, "adaptive_noise_scale": 0.005, "multires_noise_iterations": 6}
    original = load_kohya({**FORM, **values, "noise_offset_type": "Original"})
    assert original.config.loss.noise_offset == 0.05 and original.config.loss.multires_noise_iterations == 0
    assert any("multires_noise_iterations" in line for line in original.notices)
    multires = load_kohya({**FORM, **values, "noise_offset_type": "Multires", "multires_noise_discount": 0.2})
    assert multires.config.loss.noise_offset == multires.config.loss.adaptive_noise_scale == 0
    assert multires.config.loss.multires_noise_iterations == 6 and multires.config.loss.multires_noise_discount == 0.2
    assert any("noise_offset" in line for line in multires.notices)
    assert "noise_offset_type" in refused({**FORM, "noise_offset_type": "Pyramid"})


def test_empty_places_of_block_weights_count_zero() -> None:
    assert form(down_lr_weight="0,,1").network.down_lr_weight == "0,0,1"


def test_conv_dim_needs_a_type_with_convolutions() -> None:
    locon = form(LoRA_type="Kohya LoCon", conv_dim="16", conv_alpha=4)
    assert (locon.network.conv_dim, locon.network.conv_alpha) == (16, 4)
    standard = load_kohya({**FORM, "conv_dim": 16})
    assert standard.config.network.conv_dim == 0 and any("conv_dim" in line for line in standard.notices)


def test_what_kohya_would_fail_on_is_put_right_and_told() -> None:
    cropped = load_kohya({**FORM, "random_crop": True, "cache_latents": True, "cache_latents_to_disk": True})
    assert not cropped.config.memory.cache_latents and any("random_crop" in line for line in cropped.notices)
    steps = load_kohya({**FORM, "bucket_reso_steps": 1})
    assert steps.config.dataset.bucket_reso_steps == 64 and any("bucket_reso_steps" in line for line in steps.notices)
    odd = load_kohya({**FORM, "enable_bucket": False, "max_resolution": "512,650"})
    assert odd.config.dataset.resolution == (512, 648) and any("650" in line for line in odd.notices)
    to_disk = form(cache_latents=False, cache_latents_to_disk=True)  # in sd-scripts the one implies the other
    assert to_disk.memory.cache_latents


def test_fields_outside_the_options_are_returned() -> None:
    loaded = load_kohya(
        {**FORM, "pretrained_model_name_or_path": "m.safetensors", "train_data_dir": "img", "output_name": "ada",
         "output_dir": "", "vae": "", "v2": True, "sdxl": False, "v_parameterization": True, "resume": "s"}
    )  # fmt: skip
    assert loaded.fields == {
        "pretrained_model_name_or_path": "m.safetensors", "train_data_dir": "img", "output_name": "ada", "v2": True,
        "sdxl": False, "v_parameterization": True, "resume": "s",
    }  # fmt: skip
    assert loaded.config.loss.v_parameterization is True
    assert form(v_parameterization=False).loss.v_parameterization is None  # the checkpoint says what it is


# additional_parameters ----------------------------------------------------------------------------------------------


def test_additional_parameters_override_the_fields() -> None:
    config = form(
        network_dim=8, max_grad_norm=1, lr_scheduler="constant",
        additional_parameters="--max_grad_norm=0 --min_snr_gamma 5 --network_train_unet_only "
        '--caption_prefix "my dog, " '
        '--lr_scheduler_type "CosineAnnealingLR" --lr_scheduler_args "T_max=1000" "eta_min=0e-0" '
        "--keep_tokens_separator=||| --network_dim 64 --text_encoder_lr 1e-5 1e-5 --max_train_steps=250",
    )  # fmt: skip
    assert config.optimizer.max_grad_norm == 0 and config.loss.min_snr_gamma == 5 and config.network.network_dim == 64
    assert config.network.network_train_unet_only and not config.trains_text_encoder
    assert config.caption.caption_prefix == "my dog, " and config.caption.keep_tokens_separator == "|||"
    assert config.schedule.lr_scheduler_type == "CosineAnnealingLR"
    assert config.schedule.lr_scheduler_args == {"T_max": 1000, "eta_min": 0.0}
    assert config.optimizer.text_encoder_lr == 1e-5 and config.optimizer.max_train_steps == 250


def test_additional_network_args_replace_those_of_the_form() -> None:
    config = form(
        LoRA_type="Kohya LoCon", conv_dim=32, rank_dropout=0.1,
        additional_parameters="--network_module networks.lora --network_args conv_dim=4 loraplus_lr_ratio=16",
    )  # fmt: skip
    assert config.network.conv_dim == 4 and config.network.rank_dropout == 0
    assert config.optimizer.loraplus_lr_ratio == 16
    assert "algo" in refused({**FORM, "additional_parameters": "--network_args algo=lokr"})
    assert "lycoris" in refused({**FORM, "additional_parameters": "--network_module lycoris.kohya"})


def test_other_additional_parameters() -> None:
    assert form(additional_parameters="--use_8bit_adam").optimizer.optimizer_type == "AdamW8bit"
    assert form(additional_parameters="--max_train_epochs 3", max_train_steps=9).optimizer.max_train_steps == 0
    assert form(additional_parameters="--max_train_steps 9", max_train_epochs=3).optimizer.max_train_steps == 0
    assert (
        form(additional_parameters=r"--sample_prompts C:\my\prompts.txt").sample.sample_prompts == r"C:\my\prompts.txt"
    )
    assert any("log_prefix" in line for line in notices(additional_parameters="--log_prefix=xl --lowram"))
    assert "masked_loss" in notices(masked_loss=True)[0]
    assert notices(masked_loss=True, additional_parameters="--alpha_mask") == []
    for text, word in (
        ("--fp8_base_unet", "fp8_base_unet"), ("--nonsense 3", "nonsense"), ("stray --alpha_mask", "stray"),
        ("--base_weights a.safetensors", "base_weights"), ("--min_snr_gamma five", "min_snr_gamma"),
    ):  # fmt: skip
        assert word in refused({**FORM, "additional_parameters": text})


# sd-scripts' names, our own files, broken files ---------------------------------------------------------------------


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


# there and back -----------------------------------------------------------------------------------------------------

BLOCKS = ",".join("4" * 25)
COMPANIONS = {  # other options without which a value is refused
    "adaptive_noise_scale": {"noise_offset": 0.1}, "dim_from_weights": {"network_weights": "a"},
    "color_aug": {"cache_latents": False}, "random_crop": {"cache_latents": False},
    "cache_latents_to_disk": {"cache_latents": True}, "block_alphas": {"block_dims": BLOCKS},
    "conv_block_dims": {"block_dims": BLOCKS}, "conv_block_alphas": {"block_dims": BLOCKS, "conv_block_dims": BLOCKS},
    "conv_alpha": {"conv_dim": 4},
}  # fmt: skip
OTHER_VALUES: dict[str, tuple[Any, ...]] = {
    "resolution": ("768,640", 1024), "block_dims": (BLOCKS,), "block_alphas": (BLOCKS,), "conv_block_dims": (BLOCKS,),
    "conv_block_alphas": (BLOCKS,), "down_lr_weight": ("sine+.25",), "mid_lr_weight": ("0.5",),
    "up_lr_weight": ("0,1",),
    "optimizer_args": ("betas=(0.9,0.99) decouple=True name=text",), "lr_scheduler_args": ("T_max=9",),
    "lr_warmup_steps": (0.1, 0.07, 0.123, 1, 250), "lr_decay_steps": (0.25, 40), "caption_prefix": ("dog",),
    "sample_prompts": ("a\nb --n c",), "keep_tokens_separator": ("|||",), "caption_separator": (";", ""),
    "training_comment": ('it\'s "fine"',), "save_state_every_n_minutes": (3,),
}  # fmt: skip
LOST = {"save_state_every_n_minutes", "cache_text_encoder_outputs", "cache_text_encoder_outputs_to_disk"}


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
        assert back.notices == [] or row.name in ("text_encoder_lr", "unet_lr", "max_train_steps")
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
