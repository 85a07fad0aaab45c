"""Writing a run's options as the JSON of kohya's LoRA form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_trainer.config import OPTIONS, RunConfig
from lora_trainer.config.values import argument_text
from lora_trainer.files import write_json
from lora_trainer.kohya.draft import sd_default
from lora_trainer.kohya.export_type import SHOWN, write_type
from lora_trainer.kohya.names import OTHER_FAMILIES, OUTSIDE

# options that the form has under their own name
FORM_OPTIONS = (
    "adaptive_noise_scale", "block_alphas", "block_dims", "block_lr_zero_threshold", "bucket_no_upscale",
    "bucket_reso_steps", "cache_latents", "cache_latents_to_disk", "caption_dropout_every_n_epochs",
    "caption_dropout_rate", "caption_extension", "clip_skip", "color_aug", "conv_alpha", "conv_block_alphas",
    "conv_block_dims", "conv_dim", "debiased_estimation_loss", "dim_from_weights", "down_lr_weight", "enable_bucket",
    "flip_aug", "full_bf16", "full_fp16",
    "gradient_accumulation_steps", "gradient_checkpointing", "huber_c", "huber_scale", "huber_schedule",
    "ip_noise_gamma", "ip_noise_gamma_random_strength", "keep_tokens", "learning_rate", "log_with", "loraplus_lr_ratio",
    "loraplus_text_encoder_lr_ratio", "loraplus_unet_lr_ratio", "loss_type", "lr_scheduler", "lr_scheduler_args",
    "lr_scheduler_num_cycles", "lr_scheduler_power", "lr_scheduler_type", "masked_loss", "max_bucket_reso",
    "max_grad_norm", "max_timestep", "max_token_length", "max_train_steps", "metadata_author", "metadata_description",
    "metadata_license", "metadata_tags", "metadata_title", "mid_lr_weight", "min_bucket_reso", "min_snr_gamma",
    "min_timestep", "mixed_precision", "module_dropout", "multires_noise_discount", "multires_noise_iterations",
    "network_alpha", "network_dim", "network_dropout", "network_weights", "noise_offset",
    "noise_offset_random_strength", "optimizer_args", "prior_loss_weight", "random_crop", "rank_dropout",
    "reg_data_dir", "sample_every_n_epochs", "sample_every_n_steps", "sample_prompts", "sample_sampler",
    "save_every_n_epochs", "save_every_n_steps", "save_last_n_epochs", "save_last_n_steps", "save_precision",
    "scale_v_pred_loss_like_noise_pred", "scale_weight_norms", "seed", "shuffle_caption", "train_batch_size",
    "training_comment", "up_lr_weight", "v_parameterization", "v_pred_like_loss", "vae_batch_size",
    "weighted_captions",
)  # fmt: skip

# options of sd-scripts without a field in the form
ARGUMENT_OPTIONS = (
    "alpha_mask", "base_weights", "base_weights_multiplier", "caption_prefix",
    "caption_separator", "caption_suffix", "caption_tag_dropout_rate",
    "enable_wildcard", "keep_tokens_separator", "lr_decay_steps", "lr_scheduler_min_lr_ratio",
    "lr_scheduler_timescale", "metadata_merged_from", "metadata_preprocessor", "metadata_thumbnail",
    "metadata_trigger_phrase", "metadata_usage_hint", "network_train_text_encoder_only",
    "network_train_unet_only", "no_metadata", "initial_epoch", "initial_step", "skip_until_initial_step",
    "resize_interpolation", "sample_at_first", "save_n_epoch_ratio",
    "secondary_separator", "token_warmup_min", "token_warmup_step", "validation_seed",
    "validation_split", "zero_terminal_snr",
)  # fmt: skip

# zeros that the form drops on the way to its trainer, which then uses its default
DROPPED_ZEROS = ("lr_scheduler_power", "max_grad_norm", "network_alpha", "prior_loss_weight")

# What would change the training if the form kept showing its last value
SWITCHED_OFF: dict[str, Any] = {
    **dict.fromkeys(OTHER_FAMILIES, False), "dataset_config": "", "max_data_loader_n_workers": 0, "mem_eff_attn": False,
    "no_token_padding": False, "persistent_data_loader_workers": False, "resume": "", "save_model_as": "safetensors",
    "sdxl": False, "stop_text_encoder_training": 0, "train_inpainting": False, "v2": False, "vae": "",
    "xformers": "xformers", **SHOWN,
}  # fmt: skip


@dataclass(frozen=True)
class KohyaExport:
    """``data`` is the form's JSON; ``lost`` says, a sentence each, what it can't carry."""

    data: dict[str, Any]
    lost: list[str]


def to_kohya(config: RunConfig, fields: dict[str, Any] | None = None) -> dict[str, Any]:
    """The options as the JSON of kohya's LoRA form; see :func:`export_kohya`."""
    return export_kohya(config, fields).data


def export_kohya(config: RunConfig, fields: dict[str, Any] | None = None) -> KohyaExport:
    """The options as the JSON of kohya's LoRA form, and what that JSON can't carry.

    Options without a field go to ``additional_parameters`` where sd-scripts knows them.

    Args:
        fields: what isn't an option, by kohya's names, as :class:`KohyaImport` returns it.
    """
    flat = {name: config.value(name) for name in OPTIONS}
    data = dict(SWITCHED_OFF) | {name: _form_value(flat[name]) for name in FORM_OPTIONS}
    data.update({name: value for name, value in (fields or {}).items() if name in OUTSIDE})
    extra = [_argument(name, flat[name]) for name in ARGUMENT_OPTIONS if flat[name] != sd_default(name)]
    extra += [_argument(name, flat[name]) for name in DROPPED_ZEROS if flat[name] == 0 != sd_default(name)]
    lost: list[str] = []
    for rule in _RULES:
        rule(flat, data, extra, lost)
    data["additional_parameters"] = " ".join(extra)
    lost += [
        f"{name} contains a space or a quote, so kohya's form will split it."
        for name in ("caption_prefix", "caption_suffix", "caption_separator", "keep_tokens_separator",
                     "secondary_separator", "metadata_merged_from", "metadata_preprocessor",
                     "metadata_trigger_phrase", "metadata_usage_hint", "optimizer_args", "lr_scheduler_args")
        if set(" \t\n\"'") & set(_spaced(flat[name]))
    ]  # fmt: skip
    return KohyaExport(dict(sorted(data.items())), lost)


def save_kohya(config: RunConfig, path: str | Path, fields: dict[str, Any] | None = None) -> list[str]:
    """Write the JSON of kohya's LoRA form; returns what it can't carry, a sentence each.

    Raises:
        FileError: if the file can't be written.
    """
    export = export_kohya(config, fields)
    write_json(Path(path), export.data)
    return export.lost


def _spaced(value: Any) -> str:
    return "".join(item for item in value.values() if isinstance(item, str)) if isinstance(value, dict) else value


def _form_value(value: Any) -> Any:
    if isinstance(value, dict):
        return argument_text(value)
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return 0 if value is None else value


def _argument(name: str, value: Any) -> str:
    """``--name=value``, or the bare name of a flag; a list behind its name."""
    if value is True:
        return f"--{name}"
    if isinstance(value, tuple):
        return " ".join([f"--{name}", *(_quoted(str(item)) for item in value)])
    return f"--{name}={_quoted(str(value))}"


def _quoted(text: str) -> str:
    """A word of a command line."""
    quote = "'" if '"' in text else '"'
    return f"{quote}{text}{quote}" if not text or set(text) & set(" \t\n\"'") else text


def _names(flat: dict[str, Any], data: dict[str, Any], extra: list[str], lost: list[str]) -> None:
    data["optimizer"] = flat["optimizer_type"]
    data["max_resolution"] = "{},{}".format(*flat["resolution"])
    data["v_parameterization"] = bool(flat["v_parameterization"])
    if flat["v_parameterization"] is False:
        lost.append("v_parameterization false is written as not set, so kohya will follow the checkpoint.")


def _rates(flat: dict[str, Any], data: dict[str, Any], extra: list[str], lost: list[str]) -> None:
    """The form reads one empty rate as "not trained", and two as "both at learning_rate"."""
    rates = {name: flat[name] for name in ("unet_lr", "text_encoder_lr")}
    empty = [name for name, value in rates.items() if value is None]
    for name in empty if len(empty) == 1 else []:
        rates[name] = flat["learning_rate"]
        lost.append(f"{name} is empty here and is written as the value of learning_rate, {flat['learning_rate']}.")
    data.update({name: value or 0.0 for name, value in rates.items()})


def _length(flat: dict[str, Any], data: dict[str, Any], extra: list[str], lost: list[str]) -> None:
    data["epoch"] = flat["max_train_epochs"]
    data["max_train_epochs"] = 0 if flat["max_train_steps"] else flat["max_train_epochs"]


def _warmup(flat: dict[str, Any], data: dict[str, Any], extra: list[str], lost: list[str]) -> None:
    """Whole percents and whole steps have fields; any other share doesn't."""
    value = flat["lr_warmup_steps"]
    data["lr_warmup"], data["lr_warmup_steps"] = 0, 0
    if value >= 1:
        data["lr_warmup_steps"] = int(value)
    elif round(value * 100) / 100 == value:
        data["lr_warmup"] = round(value * 100)
    else:
        extra.append(_argument("lr_warmup_steps", value))


def _noise(flat: dict[str, Any], data: dict[str, Any], extra: list[str], lost: list[str]) -> None:
    """The form has either kind of noise; both together need the command line."""
    multires = ("multires_noise_iterations", "multires_noise_discount")
    original = flat["noise_offset"] or flat["noise_offset_random_strength"]
    data["noise_offset_type"] = "Multires" if flat[multires[0]] and not original else "Original"
    changed = [name for name in multires if flat[name] != sd_default(name)]
    if data["noise_offset_type"] == "Original" or flat["multires_noise_discount"] == 0:
        extra.extend(_argument(name, flat[name]) for name in changed)


def _text_cache(flat: dict[str, Any], data: dict[str, Any], extra: list[str], lost: list[str]) -> None:
    """kohya caches text encoder outputs for SDXL only, and only where nothing changes them."""
    possible = caches_captions(flat)
    data["sdxl_cache_text_encoder_outputs"] = possible
    if flat["cache_text_encoder_outputs_to_disk"] and possible and data["sdxl"]:
        extra.append("--cache_text_encoder_outputs_to_disk")
    elif flat["cache_text_encoder_outputs_to_disk"]:
        lost.append("kohya uses cache_text_encoder_outputs_to_disk only for SDXL with unchanging captions.")
    if not flat["cache_text_encoder_outputs"]:
        lost.append(
            "cache_text_encoder_outputs false is kohya's default and isn't written; loaded again, it will be true."
        )


def caches_captions(flat: dict[str, Any]) -> bool:
    """Whether kohya's trainer can encode captions once: nothing varies them, and the text encoders aren't trained."""
    varied = any(flat[name] for name in (
        "shuffle_caption", "caption_dropout_rate", "caption_dropout_every_n_epochs", "caption_tag_dropout_rate",
        "token_warmup_step", "enable_wildcard",
    ))  # fmt: skip
    trained = flat["text_encoder_lr"] != 0 and not flat["network_train_unet_only"]
    return bool(flat["cache_text_encoder_outputs"] and not varied and not trained)


def own_options(flat: dict[str, Any]) -> list[str]:
    """Sentences on options that kohya doesn't know at all."""
    own = ("blocks_in_cpu_memory", "diff_output_preservation", "ema_decay", "embedding_lr", "extra_resolutions",
           "measure_at_saves", "memory_limit_gb", "on_divergence", "pivotal_tuning", "preservation_class",
           "save_state_every_n_minutes", "stop_on_damage", "tlora_min_rank")  # fmt: skip
    lost = [f"kohya has no {name}; it isn't written." for name in own if flat[name] != OPTIONS[name].default]
    if flat["base_8bit"] == "never":
        lost.append("base_8bit never is kohya's default and isn't written; loaded again, it will be auto.")
    return lost


def _own(flat: dict[str, Any], data: dict[str, Any], extra: list[str], lost: list[str]) -> None:
    data["fp8_base"] = flat["base_8bit"] == "always"
    lost += own_options(flat)


_Rule = Callable[[dict[str, Any], dict[str, Any], list[str], list[str]], None]
_RULES: tuple[_Rule, ...] = (_names, write_type, _rates, _length, _warmup, _noise, _text_cache, _own)
