"""The JSON of kohya's LoRA form: what its names mean, and how the form repairs old files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lora_trainer.errors import ConfigError, quoted, shortened
from lora_trainer.kohya.arguments import (
    read_arguments,
    read_fp8_base,
    read_save_model_as,
    read_text_encoder_lr,
    split_command_line,
)
from lora_trainer.kohya.draft import Draft, is_off
from lora_trainer.kohya.names import OTHER_TABS, RULES
from lora_trainer.kohya.types import FORM_FIELDS, read_form_type

# What the form shows where a file has no word about it, and it isn't our default. Two deviations from the form, both
# asked for by its users: without max_train_steps the epochs count, and without a rate of its own a part follows
# learning_rate.
FORM_BASE: dict[str, Any] = {
    "network_dim": 8, "network_alpha": 1.0, "mixed_precision": "fp16", "sample_at_first": False,
}  # fmt: skip
LORA_TAB = ("LoRA_type", "network_dim", "network_alpha", "unet_lr", "network_module")  # one is in every LoRA file
WHOLE_RUN = 0.999999  # a warm-up of 100 %: 1.0 would mean one step
RATES = ("unet_lr", "text_encoder_lr")
ORIGINAL_NOISE = ("noise_offset", "noise_offset_random_strength", "adaptive_noise_scale")
MULTIRES_NOISE = ("multires_noise_iterations", "multires_noise_discount")
OWN_RULES = {
    *RULES, *RATES, *ORIGINAL_NOISE, *MULTIRES_NOISE, "max_train_steps", "max_train_epochs", "lr_warmup_steps",
    *FORM_FIELDS, "fp8_base_unet", "max_resolution", "caption_extension",
}  # fmt: skip


def refuse_other_tabs(data: dict[str, Any], source: str) -> None:
    """Say which tab of kohya's GUI a JSON comes from if it isn't the LoRA tab.

    Raises:
        ConfigError: names the tab and the key that tells.
    """
    if any(name in data for name in LORA_TAB):
        return
    telling = next((name for name in OTHER_TABS if name in data), None)
    whole = "pretrained_model_name_or_path" in data and "max_resolution" in data  # a saved form, not a few options
    if telling or whole:
        tab, sign = OTHER_TABS.get(telling or "", "Dreambooth"), f"has {telling}" if telling else "lacks network_dim"
        raise ConfigError(f"{source} is a file of kohya's {tab} tab (it {sign}); load one saved from the LoRA tab.")


def read_form(draft: Draft, data: dict[str, Any]) -> None:
    """Read the JSON of the LoRA form into the draft."""
    draft.start_from(FORM_BASE, data)
    for name, value in data.items():
        if name not in OWN_RULES:
            draft.take(name, value)
    for rule in (_kind, _optimizer, _rates, _noise, _warmup, _length, _others):
        rule(draft, data)
    text = data.get("additional_parameters")
    if not is_off(text):
        read_arguments(draft, split_command_line(str(text), draft.source))


def _kind(draft: Draft, data: dict[str, Any]) -> None:
    """LoRA_type, and the name of its oldest files."""
    read_form_type(draft, data)
    if not is_off(data.get("locon")):
        draft.refuse("locon (use LoRA_type Kohya LoCon)")


def _optimizer(draft: Draft, data: dict[str, Any]) -> None:
    """Without ``optimizer`` a file is from before it existed."""
    if "optimizer" not in data and "optimizer_type" not in data:
        draft.set("optimizer_type", "AdamW" if is_off(data.get("use_8bit_adam")) else "AdamW8bit")


_RATE_READERS: dict[str, Callable[[Draft, Any], None]] = {
    "unet_lr": lambda draft, value: draft.set("unet_lr", value),
    "text_encoder_lr": read_text_encoder_lr,
}


def _rates(draft: Draft, data: dict[str, Any]) -> None:
    """A rate of 0 or "" leaves its part out, unless both are: then both follow learning_rate."""
    if data.get("learning_rate") == "":
        draft.set("learning_rate", 0)
    given = {name: data[name] for name in RATES if data.get(name) is not None}
    zero = {name for name, value in given.items() if is_off(value)}
    for name, value in given.items():
        if zero == set(RATES):
            draft.set(name, None)
        else:
            _RATE_READERS[name](draft, 0 if name in zero else value)
    if len(zero) == 1:
        left_out = "text encoder" if "text_encoder_lr" in zero else "UNet"
        draft.notices.append(f"{zero.pop()} is 0, so the {left_out} isn't trained.")
    trained = str(data.get("network_train", "")).lower()
    if trained.startswith("unet"):
        draft.set("network_train_unet_only", True)
    elif trained.startswith("text"):
        draft.set("network_train_text_encoder_only", True)


def _noise(draft: Draft, data: dict[str, Any]) -> None:
    """noise_offset_type decides which of the two kinds of noise is used at all."""
    kind = data.get("noise_offset_type") or "Original"
    if kind not in ("Original", "Multires"):
        raise ConfigError(
            f"{draft.source}: noise_offset_type can't be {quoted(kind)}; choose one of Original, Multires."
        )
    used, unused = (ORIGINAL_NOISE, MULTIRES_NOISE) if kind == "Original" else (MULTIRES_NOISE, ORIGINAL_NOISE)
    for name in used:
        if name in data:
            draft.set(name, data[name])
    for name in unused:
        value = data.get(name)
        if not is_off(value) and name != "multires_noise_discount":
            draft.idle(name, f"noise_offset_type is {kind}")


def _warmup(draft: Draft, data: dict[str, Any]) -> None:
    """lr_warmup is a percentage; lr_warmup_steps, where above 0, wins."""
    if not is_off(data.get("lr_warmup_steps")):
        draft.set("lr_warmup_steps", data["lr_warmup_steps"])
        if not is_off(data.get("lr_warmup")):
            draft.idle("lr_warmup", "lr_warmup_steps is set")
        return
    draft.warmup_assumed = "lr_warmup" not in data
    draft.set("lr_warmup_steps", data.get("lr_warmup", 10) or 0, "lr_warmup")
    percent = draft.values["lr_warmup_steps"]
    if percent > 100:
        raise ConfigError(f"{draft.source}: lr_warmup can't be {percent:g}; give a percentage of all steps.")
    draft.values["lr_warmup_steps"] = min(percent / 100, WHOLE_RUN)


def _length(draft: Draft, data: dict[str, Any]) -> None:
    """max_train_epochs, else max_train_steps, else epoch."""
    epochs, steps, epoch = (data.get(name) for name in ("max_train_epochs", "max_train_steps", "epoch"))
    if not is_off(epochs):
        draft.set("max_train_epochs", epochs)
        draft.set("max_train_steps", 0)
        draft.epochs_win = True
        if not is_off(steps):
            draft.idle("max_train_steps", "max_train_epochs is set")
        return
    nothing = "epoch" not in data and "max_train_steps" not in data
    draft.set("max_train_steps", 1600 if nothing else 0 if is_off(steps) else steps)
    if "epoch" in data:
        draft.set("max_train_epochs", 0 if is_off(epoch) else epoch, "epoch")
        if not is_off(steps) and not is_off(epoch):
            draft.notices.append(
                f"epoch ({shortened(str(epoch))}) isn't used, because max_train_steps is {shortened(str(steps))}."
            )


def _others(draft: Draft, data: dict[str, Any]) -> None:
    read_save_model_as(draft, data.get("save_model_as"))
    if "max_resolution" in data:
        if is_off(data["max_resolution"]):
            raise ConfigError(f"{draft.source}: max_resolution is empty; set it, for instance to 512,512.")
        draft.set("resolution", data["max_resolution"], "max_resolution")
    if "caption_extension" in data:
        draft.set("caption_extension", data["caption_extension"])
        if data["caption_extension"] == "":
            draft.notices.append("caption_extension is empty, so captions are read from .caption files, as kohya does.")
    read_fp8_base(draft, data.get("fp8_base"))
    if not is_off(data.get("fp8_base_unet")):
        draft.idle("fp8_base_unet", "for Flux and Chroma only")
