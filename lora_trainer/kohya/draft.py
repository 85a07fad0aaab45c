"""What is gathered while a kohya configuration is read: option values, outside fields, and what to tell the user."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lora_trainer.config import OPTIONS, RunConfig
from lora_trainer.config.values import check_value, convert, unknown_name
from lora_trainer.errors import ConfigError, shortened
from lora_trainer.kohya.names import FORM_DEFAULTS, NOT_OFFERED, OUTSIDE, RENAMED, RULES, no_effect_reason

# sd-scripts' defaults where they differ from ours; a value that the form leaves empty has these
SD_DEFAULTS: dict[str, Any] = {
    "learning_rate": 2e-6, "lr_scheduler": "constant", "max_train_steps": 1600, "network_dim": 4, "network_alpha": 1.0,
    "caption_extension": ".caption", "enable_bucket": False, "bucket_no_upscale": False, "max_bucket_reso": 1024,
    "cache_latents": False, "save_precision": "float", "save_every_n_epochs": 0, "sample_sampler": "ddim",
    "sample_at_first": False, "mixed_precision": "no",
}  # fmt: skip

# options for which 0 is no value: kohya's form and trainer read it as "not set"
ZERO_IS_UNSET = (
    "gradient_accumulation_steps", "clip_skip", "max_token_length", "lr_scheduler_num_cycles", "vae_batch_size",
    "min_bucket_reso", "max_bucket_reso", "bucket_reso_steps", "max_timestep", "train_batch_size", "huber_c",
    "huber_scale", "loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio",
)  # fmt: skip

PRECISIONS = {  # as torch and others call them -> sd-scripts' names, for training and for files
    "float16": ("fp16",), "half": ("fp16",), "bfloat16": ("bf16",), "fp32": ("no", "float"), "float32": ("no", "float"),
}  # fmt: skip

ZERO_IS_ONE = ("gradient_accumulation_steps", "clip_skip", "vae_batch_size")  # of those: 0 is how "off" is written

NETWORK_ARGS = (
    "conv_dim", "conv_alpha", "block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas", "down_lr_weight",
    "mid_lr_weight", "up_lr_weight", "block_lr_zero_threshold", "rank_dropout", "module_dropout", "loraplus_lr_ratio",
    "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio",
)  # fmt: skip


def is_off(value: Any) -> bool:
    """Whether a value says "not used": empty, false or 0, also as text."""
    if isinstance(value, str):
        text = value.strip().lower()
        return text in {"", "false"} or _number(text) == 0
    return not value


def same(value: Any, other: Any) -> bool:
    """Whether two values are equal as the form means them: ``"1"``, ``1`` and ``1.0`` are."""
    if value == other:
        return True
    numbers = _number(value), _number(other)
    return numbers[0] is not None and numbers[0] == numbers[1]


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def sd_default(option: str) -> Any:
    """What sd-scripts uses where nothing is said."""
    return SD_DEFAULTS.get(option, OPTIONS[option].default)


@dataclass
class Draft:
    """The state of one import. ``source`` is how messages call the file."""

    source: str
    lines: Mapping[str, int] = field(default_factory=dict)  # of a TOML file, by the names in them
    values: dict[str, Any] = field(default_factory=dict)  # our option -> checked value
    fields: dict[str, Any] = field(default_factory=dict)  # names outside RunConfig
    notices: list[str] = field(default_factory=list)
    epochs_win: bool = False  # max_train_epochs is set: no step count has an effect then
    module: str = "networks.lora"  # sd-scripts' network_module
    args: dict[str, str] | None = None  # network_args, read once the module is known
    warmup_assumed: bool = False  # the file has no word about it: the form's 10 % are meant
    _idle: dict[str, list[str]] = field(default_factory=dict)  # reason -> names without effect
    _refused: dict[str, None] = field(default_factory=dict)  # ordered set
    _unknown: list[str] = field(default_factory=list)

    def set(self, option: str, value: Any, name: str = "") -> None:
        """Set an option from a value that the file calls ``name``; empty means sd-scripts' default."""
        name, row = name or option, OPTIONS[option]
        if value is None or (value == "" and (row.type != "str" or row.choices)):
            value = sd_default(option)
        elif value == "" and SD_DEFAULTS.get(option):
            value = SD_DEFAULTS[option]
        elif option in ZERO_IS_UNSET and same(value, 0):
            zero, value = value, sd_default(option)
            if value is not None and option not in ZERO_IS_ONE:
                self.notices.append(f"{name} {shortened(str(zero))} means not set, as in kohya; using {value}.")
        elif option == "seed" and same(value, -1):
            value = sd_default(option)  # how WebUIs write "any"
        if row.choices and isinstance(value, str):
            value = _choice(value, row.choices)
        if option.endswith("_lr_weight") and isinstance(value, str) and "," in value:
            value = ",".join(part.strip() or "0" for part in value.split(","))  # an empty place counts 0 in kohya
        self.values[option] = self._read(name, value, row.type, _constraints(option))

    def _read(self, name: str, value: Any, kind: str, constraints: dict[str, Any] | None = None) -> Any:
        try:
            read = convert(name, value, kind)
            check_value(name, read, constraints or {})
        except ConfigError as error:
            raise ConfigError(f"{self.where(name)}: {error}") from None
        return read

    def where(self, name: str) -> str:
        """The file, and the line that a name stands in; of an argument that of ``network_args``."""
        line = self._line(name)
        return f"{self.source}, line {line}" if line else self.source

    def _line(self, text: str) -> int:
        """The line of the first name in ``text`` that the file has; 0 for none."""
        return next((self.lines[name] for name in re.findall(r"\w+", text) if name in self.lines), 0)

    def idle(self, name: str, reason: str) -> None:
        """Note that a name has no effect; shown in one line with all others of the same reason."""
        self._idle.setdefault(shortened(reason), []).append(shortened(name))

    def refuse(self, what: str) -> None:
        """Note that something isn't offered; the import will fail with one sentence that names all such."""
        line = self._line(what.partition(" (")[0])
        self._refused[f"{f'in line {line} ' if line else ''}{shortened(what, 400)}"] = None

    def take(self, name: str, value: Any) -> None:
        """Sort one name of the file that needs no rule of its own."""
        option = RENAMED.get(name, name)
        if name in OUTSIDE:
            self._take_outside(name, value)
        elif option in OPTIONS:
            if option == name or not is_off(value) or option not in self.values:  # an empty old name hides no new one
                self.set(option, value, name)
        elif name in NOT_OFFERED:
            if not is_off(value):
                self.refuse(f"{name} ({NOT_OFFERED[name]})")
        elif reason := no_effect_reason(name):
            if not is_off(value) and not same(value, FORM_DEFAULTS.get(name)) and (name, value) != ("xformers", True):
                self.idle(name, reason)
        else:
            self._unknown.append(name)

    def _take_outside(self, name: str, value: Any) -> None:
        if name in ("v2", "sdxl", "v_parameterization"):
            on = self._read(name, False if value is None else value, "bool")
            self.fields[name] = on
            if name == "v_parameterization" and on:
                self.values[name] = True
        elif not is_off(value):
            self.fields[name] = self._read(name, value, "str")

    def finish(self) -> RunConfig:
        """Check and build; raises the gathered refusals as one sentence.

        Raises:
            ConfigError: what isn't offered, unknown or contradictory.
        """
        if self._refused:
            raise ConfigError(
                f"{self.source} asks for what isn't possible here: {', '.join(self._refused)}; "
                f"change {'it or switch it' if len(self._refused) == 1 else 'them or switch them'} off."
            )
        if self._unknown:
            known = [*OPTIONS, *RENAMED, *OUTSIDE, *RULES]
            more = f" Also unknown: {shortened(', '.join(self._unknown[1:]), 300)}." if self._unknown[1:] else ""
            raise ConfigError(f"{self.where(self._unknown[0])}: {unknown_name(self._unknown[0], known)}{more}")
        self.notices += [f"No effect: {', '.join(names)} ({reason})." for reason, names in self._idle.items()]
        try:
            return RunConfig().replace(**self.values)
        except ConfigError as error:
            raise ConfigError(f"{self.where(str(error))}: {error}") from None

    def start_from(self, defaults: dict[str, Any], known: Iterable[str]) -> None:
        """Begin with kohya's defaults for options that the file doesn't name."""
        named = {RENAMED.get(name, name) for name in known}
        self.values.update({option: value for option, value in defaults.items() if option not in named})


def _choice(text: str, choices: tuple[Any, ...]) -> str:
    """The choice that a text means, whatever its capitals and dashes; the text where it means none."""
    meant = PRECISIONS.get(_plain(text), (_plain(text),))
    return next((choice for choice in choices if isinstance(choice, str) and _plain(choice) in meant), text)


def _plain(text: str) -> str:
    return re.sub(r"[\s_-]", "", text).lower()


def _constraints(option: str) -> dict[str, Any]:
    row = OPTIONS[option]
    if option == "bucket_reso_steps":
        return {"minimum": 1}  # many shared files have 1; rounded afterwards
    return {"choices": row.choices, "minimum": row.minimum, "maximum": row.maximum, "multiple": row.multiple}
