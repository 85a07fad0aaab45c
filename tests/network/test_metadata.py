"""Metadata: kohya's whole list of keys, and what WebUIs make of them."""

from __future__ import annotations

import datetime
import hashlib
import html
import json
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.config import RunConfig
from lora_trainer.errors import FileError
from lora_trainer.network.metadata import DatasetFacts, Reached, build_metadata

RUN = """session_id output_name learning_rate text_encoder_lr unet_lr num_train_images num_validation_images
num_reg_images num_batches_per_epoch num_epochs epoch steps gradient_checkpointing gradient_accumulation_steps
max_train_steps lr_warmup_steps lr_scheduler network_module network_dim network_alpha network_dropout network_args
mixed_precision full_fp16 v2 base_model_version clip_skip max_token_length cache_latents seed lowram noise_offset
noise_offset_random_strength multires_noise_iterations multires_noise_discount adaptive_noise_scale zero_terminal_snr
training_comment sd_scripts_commit_hash optimizer max_grad_norm caption_dropout_rate caption_dropout_every_n_epochs
caption_tag_dropout_rate face_crop_aug_range prior_loss_weight min_snr_gamma scale_weight_norms ip_noise_gamma
ip_noise_gamma_random_strength debiased_estimation loss_type huber_schedule huber_scale huber_c fp8_base fp8_base_unet
validation_seed validation_split max_validation_steps validate_every_n_epochs validate_every_n_steps
resize_interpolation sd_model_name batch_size_per_device total_batch_size resolution color_aug flip_aug random_crop
shuffle_caption enable_bucket bucket_no_upscale min_bucket_reso max_bucket_reso keep_tokens dataset_dirs
reg_dataset_dirs tag_frequency bucket_info""".split()  # noqa: SIM905
TIMES = ["training_started_at", "training_finished_at"]
HASHES = ["sd_model_hash", "new_sd_model_hash", "vae_name", "vae_hash", "new_vae_hash"]

DATASET = DatasetFacts(
    images=200,
    reg_images=20,
    batches_per_epoch=110,
    folders={"10_sks dog": {"n_repeats": 10, "img_count": 20}},
    reg_folders={"1_dog": {"n_repeats": 1, "img_count": 20}},
    tag_frequency={"10_sks dog": {"sks dog": 20, "“grass” <b>": 4}},
    buckets=(((512, 640), 150), ((512, 512), 50)),
    mean_aspect_error=0.05,
)


def build(models: Any, family: str = "sd1", **changes: Any) -> dict[str, str]:
    options = changes.pop("options", {})
    info = models.info(family, **changes.pop("info", {}))
    progress = changes.pop("progress", Reached(2, 10, 220, 1100, 2))
    config = RunConfig().replace(**options)
    return build_metadata("dog-000002", config, info, DATASET, progress, seed=42, **changes)


def test_every_key_of_sd_scripts_is_there_and_a_string(models: Any) -> None:
    bare = build(models)
    assert {key for key in bare if key.startswith("ss_")} == {f"ss_{key}" for key in RUN}
    assert all(isinstance(value, str) and html.escape(value) for value in bare.values() if value)
    assert all(isinstance(value, str) for value in bare.values())


def test_hashes_and_times_where_they_are_known(models: Any, tmp_path: Path) -> None:
    checkpoint = tmp_path / "model.safetensors"
    checkpoint.write_bytes(bytes(range(256)) * 4500)
    content = checkpoint.read_bytes()
    info = {"checkpoint_sha256": "ab" * 32, "vae": "vae.pt", "vae_sha256": "cd" * 32}
    progress = Reached(2, 10, 220, 1100, 2, started_at=1_700_000_000.5, finished_at=1_700_000_100.0)
    whole = build(models, info=info, progress=progress, checkpoint=checkpoint, vae=checkpoint)
    assert {key for key in whole if key.startswith("ss_")} == {f"ss_{key}" for key in RUN + TIMES + HASHES}
    assert whole["ss_sd_model_hash"] == hashlib.sha256(content[0x100000:0x110000]).hexdigest()[:8]
    assert whole["ss_new_sd_model_hash"] == "ab" * 32
    started = datetime.datetime.fromtimestamp(float(whole["ss_training_started_at"]), datetime.timezone.utc)
    assert started.strftime("%Y-%m-%d %H:%M") == "2023-11-14 22:13"  # as the WebUI's editor reads it
    assert whole["modelspec.date"] == "2023-11-14T22:15:00"
    with pytest.raises(FileError, match=r"gone\.ckpt"):
        build(models, checkpoint=tmp_path / "gone.ckpt")


@pytest.mark.parametrize(
    ("family", "prediction", "version", "v2", "architecture"),
    [
        ("sd1", "epsilon", "sd_v1", "False", "stable-diffusion-v1/lora"),
        ("sd1", "v_prediction", "sd_v1_v", "False", "stable-diffusion-v1/lora"),
        ("sd2", "epsilon", "sd_v2", "True", "stable-diffusion-v2-512/lora"),
        ("sd2", "v_prediction", "sd_v2_v", "True", "stable-diffusion-v2-768-v/lora"),
        ("sdxl", "epsilon", "sdxl_base_v1-0", "False", "stable-diffusion-xl-v1-base/lora"),
        ("sdxl", "v_prediction", "sdxl_base_v1-0", "False", "stable-diffusion-xl-v1-base/lora"),
    ],
)
def test_families(models: Any, family: str, prediction: str, version: str, v2: str, architecture: str) -> None:
    metadata = build(models, family, info={"prediction_type": prediction})
    assert (metadata["ss_base_model_version"], metadata["ss_v2"]) == (version, v2)
    assert metadata["modelspec.architecture"] == architecture
    assert metadata["modelspec.prediction_type"] == {"epsilon": "epsilon", "v_prediction": "v"}[prediction]
    implementation = "https://github.com/Stability-AI/generative-models" if family == "sdxl" else "diffusers"
    assert metadata["modelspec.implementation"] == implementation
    forced = build(models, "sd2", options={"v_parameterization": prediction == "v_prediction"})
    assert forced["ss_base_model_version"] == ("sd_v2_v" if prediction == "v_prediction" else "sd_v2")


def test_what_the_webuis_editor_shows(models: Any) -> None:
    metadata = build(models, options={"resolution": (512, 768), "clip_skip": 2})
    parsed = {key: json.loads(value) if value.startswith("{") else value for key, value in metadata.items()}
    assert parsed["ss_output_name"] == "dog-000002"
    assert parsed["ss_clip_skip"] == "2" and parsed["ss_network_module"] == "networks.lora"
    buckets = parsed["ss_bucket_info"]["buckets"]
    assert {tuple(b["resolution"]): b["count"] for b in buckets.values()} == {(512, 640): 150, (512, 512): 50}
    assert sum(int(folder["img_count"]) for folder in parsed["ss_dataset_dirs"].values()) == 20
    assert parsed["ss_tag_frequency"]["10_sks dog"]["sks dog"] == 20
    assert parsed["modelspec.resolution"] == "512x768" and parsed["modelspec.trigger_phrase"] == "sks dog"
    assert parsed["ss_total_batch_size"] == "2"


def test_what_was_set_is_what_is_told(models: Any) -> None:
    options = {
        "network_dim": 8, "network_alpha": 0.0, "conv_dim": 4, "conv_alpha": 2.0, "rank_dropout": 0.1,
        "down_lr_weight": "sine+.5", "loraplus_lr_ratio": 16.0, "network_train_unet_only": True, "unet_lr": 3e-4,
        "optimizer_type": "AdamW8bit", "optimizer_args": {"weight_decay": 0.1}, "min_snr_gamma": 5.0,
        "min_timestep": 100, "metadata_author": "me", "training_comment": "hello",
    }  # fmt: skip
    metadata = build(models, options=options)
    assert json.loads(metadata["ss_network_args"]) == {
        "conv_dim": "4", "conv_alpha": "2.0", "rank_dropout": "0.1", "down_lr_weight": "sine+.5",
        "loraplus_lr_ratio": "16.0",
    }  # fmt: skip
    assert metadata["ss_network_alpha"] == "8.0" and metadata["ss_network_dim"] == "8"
    assert (metadata["ss_unet_lr"], metadata["ss_text_encoder_lr"]) == ("0.0003", "None")
    assert metadata["ss_optimizer"] == "AdamW8bit(weight_decay=0.1)"
    assert metadata["ss_min_snr_gamma"] == "5.0" and metadata["ss_training_comment"] == "hello"
    assert metadata["modelspec.timestep_range"] == "100,1000" and metadata["modelspec.author"] == "me"
    assert metadata["ss_seed"] == "42" and metadata["ss_epoch"] == "2" and metadata["ss_steps"] == "220"


def test_equal_runs_have_equal_metadata_and_other_runs_another_session(models: Any) -> None:
    assert build(models) == build(models)
    assert build(models)["ss_session_id"] != build(models, options={"network_dim": 4})["ss_session_id"]
    assert int(build(models)["ss_session_id"]) > 1000
