"""kohya's configurations: what the form's names and values mean."""

from __future__ import annotations

import pytest

from lora_trainer.config import RunConfig
from lora_trainer.kohya import load_kohya
from tests.support.kohya_form import FORM, STARTER, form, notices, refused


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


@pytest.mark.parametrize("zero", ["0", 0, 0.0])
def test_replaced_zero_is_told(zero: object) -> None:
    loaded = load_kohya({**FORM, "huber_c": zero, "vae_batch_size": 0, "clip_skip": 0, "loraplus_lr_ratio": 0})
    assert loaded.config.loss.huber_c == 0.1
    assert loaded.notices == [f"huber_c {zero} means not set, as in kohya; using 0.1."]


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
    assert (
        load_kohya({**without_lr_warmup, "lr_scheduler": "constant"}).notices == []
    )  # the file has no warm-up to drop
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
    assert "networks.lora_flux" in refused({**FORM, "additional_parameters": "--network_module networks.lora_flux"})


def test_spellings_that_can_mean_one_thing_only() -> None:
    config = load_kohya({
        "lr_scheduler": "Cosine with restarts", "mixed_precision": "bfloat16", "save_precision": "fp32",
        "loss_type": "L2", "resolution": "512x768", "seed": -1, "deepspeed": True,
    })  # fmt: skip
    assert config.config.schedule.lr_scheduler == "cosine_with_restarts"
    values = {name: config.config.value(name) for name in ("mixed_precision", "save_precision", "loss_type", "seed")}
    assert values == {"mixed_precision": "bf16", "save_precision": "float", "loss_type": "l2", "seed": 0}
    assert config.config.dataset.resolution == (512, 768)
    assert form(mixed_precision="FP32").memory.mixed_precision == "no"


def test_other_additional_parameters() -> None:
    assert form(additional_parameters="--use_8bit_adam").optimizer.optimizer_type == "AdamW8bit"
    assert form(additional_parameters="--max_train_epochs 3", max_train_steps=9).optimizer.max_train_steps == 0
    assert form(additional_parameters="--max_train_steps 9", max_train_epochs=3).optimizer.max_train_steps == 0
    assert (
        form(additional_parameters=r"--sample_prompts C:\my\prompts.txt").sample.sample_prompts == r"C:\my\prompts.txt"
    )
    assert form(additional_parameters="--caption_extention=.cap").caption.caption_extension == ".cap"
    assert any("log_prefix" in line for line in notices(additional_parameters="--log_prefix=xl --lowram"))
    assert list(form(additional_parameters="--base_weights a.safetensors").network.base_weights) == ["a.safetensors"]
    assert form(masked_loss=True).dataset.masked_loss and notices(masked_loss=True) == []
    for text, word in (
        ("--dataset_class a.b", "dataset_class"), ("--nonsense 3", "nonsense"), ("stray --alpha_mask", "stray"),
        ("--min_snr_gamma five", "min_snr_gamma"),
    ):  # fmt: skip
        assert word in refused({**FORM, "additional_parameters": text})
