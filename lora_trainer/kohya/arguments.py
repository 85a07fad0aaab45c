"""sd-scripts' own option names: the tail of a command line, or a flat configuration."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Any

from lora_trainer.config import OPTIONS
from lora_trainer.errors import ConfigError, quoted, shortened
from lora_trainer.kohya.draft import SD_DEFAULTS, Draft, is_off
from lora_trainer.kohya.names import OLD_NAMES
from lora_trainer.kohya.types import read_module, read_network_args

FEW = (
    "text_encoder_lr",
    "optimizer_args",
    "lr_scheduler_args",
    "network_args",
    "base_weights",
    "base_weights_multiplier",
)  # take several values


def split_command_line(text: str, source: str) -> list[tuple[str, Any]]:
    """Read ``--name value --flag --other=value`` as (name, value); a flag's value is True, several values are a list.

    Raises:
        ConfigError: for a word that belongs to no option.
    """
    lexer = shlex.shlex(text, posix=True, punctuation_chars="")
    lexer.whitespace_split, lexer.commenters, lexer.escape = True, "", ""  # a backslash is part of a Windows path
    try:
        words = list(lexer)
    except ValueError:
        words = text.replace('"', "").split()  # as the form does it
    found: list[tuple[str, list[str]]] = []
    for word in words:
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            found.append((name.replace("-", "_"), [value] if equals else []))
        elif found:
            found[-1][1].append(word)
        else:
            raise ConfigError(
                f"{source}: additional_parameters begins with {quoted(word)}, but options begin with --; correct it."
            )
    return [(name, _value(name, values)) for name, values in found]


def _value(name: str, values: list[str]) -> Any:
    if name in FEW:
        return values
    return True if not values else " ".join(values)


def read_arguments(draft: Draft, arguments: Iterable[tuple[str, Any]]) -> None:
    """Apply options by sd-scripts' names; later ones win over what the draft already has."""
    arguments = [(OLD_NAMES.get(name, name), value) for name, value in arguments]
    for name, value in arguments:
        rule = _ARGUMENT_RULES.get(name)
        if rule:
            rule(draft, value)
        else:
            draft.take(name, value)
    names = {name for name, value in arguments if not is_off(value)}
    if "max_train_epochs" in names or draft.epochs_win:
        draft.values["max_train_steps"] = 0


def read_flat(draft: Draft, data: dict[str, Any]) -> None:
    """Read a configuration with sd-scripts' names, as its TOML files have them; sections are flattened."""
    flat: dict[str, Any] = {}
    for name, value in data.items():
        flat.update(value if isinstance(value, dict) and name not in OPTIONS else {name: value})
    if not is_off(flat.get("max_train_epochs")):
        flat.pop("max_train_steps", None)
    else:
        flat.setdefault("max_train_steps", None)
    draft.start_from(SD_DEFAULTS, flat)
    read_arguments(draft, flat.items())
    if "resolution" not in flat:
        draft.notices.append("resolution isn't given; using 512,512.")


def read_text_encoder_lr(draft: Draft, value: Any) -> None:
    """sd-scripts takes a list; SD and SDXL LoRAs use its first number."""
    numbers = value.split() if isinstance(value, str) and " " in value else value
    if isinstance(numbers, (list, tuple)):
        if len({str(number) for number in numbers}) > 1:
            first = shortened(str(numbers[0]))
            draft.notices.append(
                f"text_encoder_lr has several values; using the first, {first}, for all text encoders."
            )
        numbers = numbers[0] if numbers else None
    draft.set("text_encoder_lr", numbers)


def read_save_model_as(draft: Draft, value: Any) -> None:
    """Only safetensors is written; the form turns anything but ckpt into it."""
    if value == "ckpt":
        draft.notices.append("save_model_as ckpt isn't followed: safetensors is written, which the same programs read.")


def read_fp8_base(draft: Draft, value: Any) -> None:
    """Weights in 8 bits, here whole numbers; without it they are as the memory allows."""
    if not is_off(value):
        draft.set("base_8bit", "always", "fp8_base")


def _ignore(draft: Draft, value: Any) -> None:
    """sd-scripts ignores it too."""


def _old_optimizer(name: str) -> Any:
    def rule(draft: Draft, value: Any) -> None:
        if not is_off(value):
            draft.set("optimizer_type", name)

    return rule


_ARGUMENT_RULES: dict[str, Any] = {
    "text_encoder_lr": read_text_encoder_lr,
    "network_args": read_network_args,
    "network_module": read_module,
    "save_model_as": read_save_model_as,
    "fp8_base": read_fp8_base,
    "use_8bit_adam": _old_optimizer("AdamW8bit"),
    "use_lion_optimizer": _old_optimizer("Lion"),
    "epoch": _ignore,
    "noise_offset_type": _ignore,
}
