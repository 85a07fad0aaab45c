"""What a LoRA file says of its training: sd-scripts' ``ss_*`` keys and Stability's ModelSpec, all values strings.

Times are arguments and may be left out: with the same seed, configuration and data the file is then the same byte for
byte. The session id comes from seed and configuration for the same reason.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_trainer import __version__
from lora_trainer.config import RunConfig
from lora_trainer.errors import FileError
from lora_trainer.families import SD2, traits
from lora_trainer.hosts.base import ModelInfo
from lora_trainer.network.file import LEGACY_LENGTH, LEGACY_START
from lora_trainer.network.network_args import network_arguments, network_module
from lora_trainer.seeds import derive

_LEAST = (  # what is written with no_metadata: sd-scripts' list, the name that WebUIs know it by, and the run's number
    "ss_v2", "ss_base_model_version", "ss_network_module", "ss_network_dim", "ss_network_alpha", "ss_network_args",
    "ss_output_name", "ss_session_id",
)  # fmt: skip
_NOT_OFFERED = {  # sd-scripts' values for what this program doesn't have
    **dict.fromkeys(("lowram", "fp8_base_unet"), False),
    **dict.fromkeys(("face_crop_aug_range", "max_validation_steps")),
    **dict.fromkeys(("validate_every_n_epochs", "validate_every_n_steps")),
}


@dataclass(frozen=True)
class DatasetFacts:
    """What the metadata say of the dataset.

    Attributes:
        images: images x repeats of an epoch, without regularisation images.
        reg_images: the same of the regularisation images.
        held_out: the same of the images that aren't trained on.
        batches_per_epoch: of all processes.
        folders: ``{folder name: {"n_repeats": n, "img_count": n}}``.
        reg_folders: the same of the regularisation folders.
        tag_frequency: ``{folder name: {tag: count}}``.
        buckets: (width, height) and count of samples of every bucket.
        mean_aspect_error: between images and their buckets.
        datasets: what a dataset file says, folders by their names alone.
    """

    images: int
    reg_images: int
    batches_per_epoch: int
    folders: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    reg_folders: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    tag_frequency: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    buckets: tuple[tuple[tuple[int, int], int], ...] = ()
    mean_aspect_error: float = 0.0
    held_out: int = 0
    datasets: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Reached:
    """How far the training was when the file was written; times in seconds since 1970, None to leave them out."""

    epoch: int
    epochs: int
    step: int
    steps: int
    processes: int = 1
    started_at: float | None = None
    finished_at: float | None = None


def build_metadata(
    output_name: str,
    config: RunConfig,
    info: ModelInfo,
    dataset: DatasetFacts,
    progress: Reached,
    *,
    seed: int,
    checkpoint: Path | None = None,
    vae: Path | None = None,
) -> dict[str, str]:
    """All metadata of a LoRA file.

    Args:
        output_name: the stem of the very file: WebUIs use it as the name in ``<lora:NAME:1>``.
        config: of the run.
        info: the model that was trained on.
        dataset: what was trained on.
        progress: how far it was.
        seed: the one in use (``config.optimizer.seed`` may be 0, for a random one).
        checkpoint: its file, for the WebUI's short hash; None leaves that hash out.
        vae: the same for a VAE chosen apart.
    """
    values = {
        **_run_keys(output_name, config, progress, seed),
        **_option_keys(config),
        **_model_keys(config, info, checkpoint, vae),
        **_dataset_keys(config, dataset, progress),
    }
    text = {f"ss_{key}": value if isinstance(value, str) else str(value) for key, value in values.items()}
    if config.save.no_metadata:
        text = {key: text[key] for key in _LEAST if key in text}
    return {**text, **_model_spec(output_name, config, info, dataset, progress)}


def _run_keys(output_name: str, config: RunConfig, progress: Reached, seed: int) -> dict[str, Any]:
    rates = config.optimizer
    keys = {
        "session_id": derive(seed, json.dumps(config.to_dict(), sort_keys=True)) % 2**32,
        "training_started_at": progress.started_at,
        "training_finished_at": progress.finished_at,
        "output_name": output_name,
        "learning_rate": rates.learning_rate,
        "unet_lr": config.unet_rate if config.trains_unet else None,
        "text_encoder_lr": config.text_encoder_rate if config.trains_text_encoder else None,
        "num_epochs": progress.epochs,
        "epoch": progress.epoch,
        "steps": progress.step,
        "max_train_steps": progress.steps,
        "seed": seed,
        "training_comment": config.save.training_comment,
        "sd_scripts_commit_hash": f"lora-trainer {__version__}",
    }
    return {key: value for key, value in keys.items() if value is not None or not key.endswith("_at")}


def _option_keys(config: RunConfig) -> dict[str, Any]:
    network, rates, loss = config.network, config.optimizer, config.loss
    arguments = [f"{key}={value}" for key, value in rates.optimizer_args.items()]
    return {
        "network_module": network_module(config),
        "network_dim": network.network_dim,
        "network_alpha": network.network_alpha or float(network.network_dim),
        "network_dropout": network.network_dropout or None,
        "network_args": json.dumps(network_arguments(config)),
        "optimizer": rates.optimizer_type + (f"({','.join(arguments)})" if arguments else ""),
        "lr_scheduler": config.schedule.lr_scheduler_type or config.schedule.lr_scheduler,
        "lr_warmup_steps": config.schedule.lr_warmup_steps,
        "max_grad_norm": rates.max_grad_norm,
        "gradient_accumulation_steps": rates.gradient_accumulation_steps,
        "gradient_checkpointing": config.memory.gradient_checkpointing,
        "full_fp16": config.memory.full_fp16,
        "mixed_precision": config.memory.mixed_precision,
        "fp8_base": config.memory.base_8bit == "always",
        "cache_latents": config.memory.cache_latents,
        "clip_skip": config.caption.clip_skip,
        "max_token_length": config.caption.max_token_length,
        "caption_dropout_rate": config.caption.caption_dropout_rate,
        "caption_dropout_every_n_epochs": config.caption.caption_dropout_every_n_epochs,
        "caption_tag_dropout_rate": config.caption.caption_tag_dropout_rate,
        "noise_offset": loss.noise_offset or None,
        "noise_offset_random_strength": loss.noise_offset_random_strength,
        "adaptive_noise_scale": loss.adaptive_noise_scale or None,
        "multires_noise_iterations": loss.multires_noise_iterations or None,
        "multires_noise_discount": loss.multires_noise_discount,
        "ip_noise_gamma": loss.ip_noise_gamma or None,
        "ip_noise_gamma_random_strength": loss.ip_noise_gamma_random_strength,
        "zero_terminal_snr": loss.zero_terminal_snr,
        "min_snr_gamma": loss.min_snr_gamma or None,
        "debiased_estimation": loss.debiased_estimation_loss,
        "loss_type": loss.loss_type,
        "huber_schedule": loss.huber_schedule,
        "huber_scale": loss.huber_scale,
        "huber_c": loss.huber_c,
        "scale_weight_norms": network.scale_weight_norms or None,
        "prior_loss_weight": config.dataset.prior_loss_weight,
        "resize_interpolation": config.dataset.resize_interpolation or None,
        "validation_split": config.dataset.validation_split,
        "validation_seed": config.dataset.validation_seed if config.dataset.validation_split else None,
        **_NOT_OFFERED,
    }


def _predicts_v(config: RunConfig, info: ModelInfo) -> bool:
    given = config.loss.v_parameterization
    return info.prediction_type == "v_prediction" if given is None else given


def _model_keys(config: RunConfig, info: ModelInfo, checkpoint: Path | None, vae: Path | None) -> dict[str, Any]:
    family = traits(info.family)
    marked = _predicts_v(config, info) and family.marks_v
    keys: dict[str, Any] = {
        "v2": info.family == SD2,
        "base_model_version": family.base_version + ("_v" if marked else ""),
        "sd_model_name": info.checkpoint,
        "new_sd_model_hash": info.checkpoint_sha256,
        "vae_name": info.vae,
        "new_vae_hash": info.vae_sha256,
        "sd_model_hash": _short_hash(checkpoint) if checkpoint else "",
        "vae_hash": _short_hash(vae) if vae else "",
    }
    return {key: value for key, value in keys.items() if value != ""}


def _dataset_keys(config: RunConfig, dataset: DatasetFacts, progress: Reached) -> dict[str, Any]:
    options, captions = config.dataset, config.caption
    buckets = {
        str(number): {"resolution": list(size), "count": count} for number, (size, count) in enumerate(dataset.buckets)
    }
    keys: dict[str, Any] = {
        "num_train_images": dataset.images,
        "num_validation_images": dataset.held_out,
        "num_reg_images": dataset.reg_images,
        "num_batches_per_epoch": dataset.batches_per_epoch,
        "batch_size_per_device": options.train_batch_size,
        "total_batch_size": options.train_batch_size * progress.processes,
        "resolution": str(options.resolution),
        "shuffle_caption": captions.shuffle_caption,
        "keep_tokens": captions.keep_tokens,
        "dataset_dirs": json.dumps(dataset.folders),
        "reg_dataset_dirs": json.dumps(dataset.reg_folders),
        "tag_frequency": json.dumps(dataset.tag_frequency, ensure_ascii=False),
        "bucket_info": json.dumps({"buckets": buckets, "mean_img_ar_error": dataset.mean_aspect_error}),
    }
    for name in (
        "color_aug",
        "flip_aug",
        "random_crop",
        "enable_bucket",
        "bucket_no_upscale",
        "min_bucket_reso",
        "max_bucket_reso",
    ):
        keys[name] = getattr(options, name)
    if dataset.datasets:
        keys["datasets"] = json.dumps(dataset.datasets, ensure_ascii=False)
    return keys


def _model_spec(
    output_name: str, config: RunConfig, info: ModelInfo, dataset: DatasetFacts, progress: Reached
) -> dict[str, str]:
    """https://github.com/Stability-AI/ModelSpec, version 1.0.1."""
    save, loss = config.save, config.loss
    width, height = config.dataset.resolution
    at = progress.finished_at if progress.finished_at is not None else progress.started_at
    date = datetime.datetime.fromtimestamp(at, datetime.timezone.utc) if at is not None else None
    whole = loss.min_timestep == 0 and loss.max_timestep == 1000
    family, v_prediction = traits(info.family), _predicts_v(config, info)
    triggers = set() if save.no_metadata else {name.partition("_")[2] for name in dataset.folders}
    spec = {
        "sai_model_spec": "1.0.1",
        "architecture": f"{family.architecture[v_prediction]}/lora",
        "implementation": family.implementation,
        "implementation_version": f"lora-trainer {__version__}",
        "title": save.metadata_title or output_name,
        "author": save.metadata_author,
        "description": save.metadata_description,
        "license": save.metadata_license,
        "tags": save.metadata_tags,
        "trigger_phrase": save.metadata_trigger_phrase or (triggers.pop() if len(triggers) == 1 else ""),
        "usage_hint": save.metadata_usage_hint,
        "merged_from": save.metadata_merged_from,
        "preprocessor": save.metadata_preprocessor,
        "thumbnail": save.metadata_thumbnail,
        "resolution": f"{width}x{height}",
        "prediction_type": "v" if v_prediction else "epsilon",
        "date": date.replace(microsecond=0, tzinfo=None).isoformat() if date else "",
        "timestep_range": "" if whole else f"{loss.min_timestep},{loss.max_timestep}",
        "encoder_layer": str(config.caption.clip_skip) if family.clip_skip else "",
    }
    return {f"modelspec.{key}": value for key, value in spec.items() if value}


def _short_hash(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            stream.seek(LEGACY_START)
            return hashlib.sha256(stream.read(LEGACY_LENGTH)).hexdigest()[:8]
    except OSError as error:
        raise FileError(f"Can't read {path} ({error.strerror or error}); check the path.") from error
