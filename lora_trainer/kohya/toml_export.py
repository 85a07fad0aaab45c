"""Writing a run's options as the TOML of sd-scripts' ``--config_file``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lora_trainer.config import OPTIONS, RunConfig
from lora_trainer.config.values import argument_text
from lora_trainer.kohya.draft import NETWORK_ARGS, SD_DEFAULTS, sd_default
from lora_trainer.kohya.export_type import plain_type, preset_of
from lora_trainer.kohya.exporter import ARGUMENT_OPTIONS, FORM_OPTIONS, KohyaExport, caches_captions, own_options
from lora_trainer.kohya.names import OUTSIDE
from lora_trainer.kohya.types import BLOCKS, LYCORIS, OFT, TYPE_OPTIONS
from lora_trainer.toml_file import write_toml

PROMPT_FILES = (".txt", ".toml", ".json")
_ELSEWHERE = (*NETWORK_ARGS, *TYPE_OPTIONS, "v_parameterization", "sample_prompts", "lr_scheduler_args",
              "optimizer_args", "max_train_steps", "base_weights", "base_weights_multiplier")  # fmt: skip
_MODULES = {"lora": "networks.lora", "lora_fa": "networks.lora_fa", "dylora": "networks.dylora"}
_SPECIAL = ("dora_wd", "rs_lora", "use_tucker", "train_norm", "lycoris_preset")  # of LyCORIS alone


def export_toml(config: RunConfig, fields: dict[str, Any] | None = None) -> KohyaExport:
    """The options by sd-scripts' names, in a section for each group; and what they can't carry, a sentence each.

    What is as sd-scripts has it by itself isn't written.

    Args:
        fields: what isn't an option, by kohya's names, as :class:`KohyaImport` returns it.
    """
    flat = {name: config.value(name) for name in OPTIONS}
    names = [*FORM_OPTIONS, *ARGUMENT_OPTIONS, "optimizer_type", "unet_lr", "lr_warmup_steps"]
    values = {
        name: _plain(flat[name])
        for name in names
        if name not in _ELSEWHERE and flat[name] is not None and (flat[name] != sd_default(name) or name in SD_DEFAULTS)
    }
    lost: list[str] = []
    values["resolution"] = _plain(flat["resolution"])
    for name in ("base_weights", "base_weights_multiplier"):
        if flat[name]:
            values[name] = list(flat[name])
    if flat["text_encoder_lr"] is not None:
        values["text_encoder_lr"] = [flat["text_encoder_lr"]]
    for name in ("optimizer_args", "lr_scheduler_args"):
        if flat[name]:
            values[name] = [argument_text({key: value}) for key, value in flat[name].items()]
    _length(flat, values, lost)
    _network(flat, values, lost)
    _words(flat, values, lost)
    _text_cache(flat, values, lost)
    if flat["base_8bit"] == "always":
        values["fp8_base"] = True
    lost += own_options(flat)
    data: dict[str, Any] = {name: value for name, value in (fields or {}).items() if name in OUTSIDE and name != "sdxl"}
    for name, value in values.items():
        group = OPTIONS[name].group if name in OPTIONS else "network"
        data.setdefault(f"{group}_arguments", {})[name] = value
    return KohyaExport(data, lost)


def save_toml(config: RunConfig, path: Path, fields: dict[str, Any] | None = None) -> list[str]:
    """Write sd-scripts' TOML; returns what it can't carry, a sentence each.

    Raises:
        FileError: if the file can't be written.
    """
    export = export_toml(config, fields)
    write_toml(path, export.data)
    return export.lost


def _plain(value: Any) -> Any:
    """Numbers of a list as text, which sd-scripts splits itself; whole numbers without a point."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return int(value) if isinstance(value, float) and value >= 1 and value.is_integer() else value


def _length(flat: dict[str, Any], values: dict[str, Any], lost: list[str]) -> None:
    if not flat["max_train_steps"]:
        values["max_train_epochs"] = flat["max_train_epochs"]
        return
    values["max_train_steps"] = flat["max_train_steps"]
    if flat["max_train_epochs"] != OPTIONS["max_train_epochs"].default:
        lost.append("max_train_epochs isn't written: sd-scripts would take it instead of max_train_steps.")


def _network(flat: dict[str, Any], values: dict[str, Any], lost: list[str]) -> None:
    """The module, and the arguments that it is given."""
    algo = plain_type(flat, lost)
    changed = {name for name in (*NETWORK_ARGS, *TYPE_OPTIONS) if flat[name] != OPTIONS[name].default}
    if algo == "oft":
        _oft(flat, values, changed, lost)
        return
    lycoris = algo not in _MODULES or (algo != "lora_fa" and any(flat[name] for name in _SPECIAL))
    args: dict[str, Any] = {}
    if lycoris:
        args = {"algo": "locon" if algo == "lora" else algo, "preset": preset_of(flat, lost)}
        args |= {"conv_dim": flat["conv_dim"], "conv_alpha": flat["conv_alpha"]}
        left = changed & set(BLOCKS)
        lost += [f"LyCORIS has no {name}; it isn't written." for name in sorted(left)]
    else:
        left = changed & set(TYPE_OPTIONS) - ({"unit"} if algo == "dylora" else set())
        lost += [f"{_MODULES[algo]} has no {name}; it isn't written." for name in sorted(left)]
        if flat["lycoris_preset"]:
            lost.append(f"lycoris_preset isn't written, because {_MODULES[algo]} has none.")
    args |= {name: flat[name] for name in sorted(changed - left)}
    if lycoris and algo == "dylora":
        args |= {"block_size": flat["unit"]}
        args.pop("unit", None)
    values["network_module"] = LYCORIS if lycoris else _MODULES[algo]
    if args:
        values["network_args"] = [f"{name}={_plain(value)}" for name, value in args.items()]


def _oft(flat: dict[str, Any], values: dict[str, Any], changed: set[str], lost: list[str]) -> None:
    """sd-scripts' OFT, which trains the UNet's attention, or more of it."""
    values |= {"network_module": OFT, "network_alpha": flat["constraint"]}
    if not flat["network_train_unet_only"]:
        lost.append(f"network_train_unet_only false isn't written: {OFT} trains the UNet only.")
    if flat["lycoris_preset"] == "":
        args = ["enable_all_linear=True", *(["enable_conv=True"] if flat["conv_dim"] else [])]
        values["network_args"] = args
    elif flat["lycoris_preset"] != "attn-only":
        lost.append(f"lycoris_preset isn't written, because {OFT} has none: it will train the attention.")
    if flat["conv_dim"] not in (0, flat["network_dim"]):
        lost.append(f"conv_dim isn't written: with {OFT} it is network_dim.")
    left = changed - {"constraint", "conv_dim"}
    if flat["network_alpha"] != OPTIONS["network_alpha"].default:
        left.add("network_alpha")  # it stands for the constraint
    lost += [f"{OFT} has no {name}; it isn't written." for name in sorted(left)]


def _words(flat: dict[str, Any], values: dict[str, Any], lost: list[str]) -> None:
    if flat["v_parameterization"]:
        values["v_parameterization"] = True
    elif flat["v_parameterization"] is False:
        lost.append("v_parameterization false is written as not set, so it will follow the checkpoint.")
    prompts = flat["sample_prompts"]
    if prompts.lower().endswith(PROMPT_FILES):
        values["sample_prompts"] = prompts
    elif prompts:
        lost.append("sample_prompts isn't written: sd-scripts takes a file of prompts, and here they are text.")


def _text_cache(flat: dict[str, Any], values: dict[str, Any], lost: list[str]) -> None:
    """sd-scripts caches captions for SDXL only, and refuses to where something changes them."""
    possible = caches_captions(flat)
    for name in ("cache_text_encoder_outputs", "cache_text_encoder_outputs_to_disk"):
        values.pop(name, None)
    if flat["cache_text_encoder_outputs_to_disk"]:
        if possible:
            values["cache_text_encoder_outputs_to_disk"] = True
        else:
            lost.append(
                "cache_text_encoder_outputs_to_disk isn't written: sd-scripts has it where captions don't change."
            )
    if not flat["cache_text_encoder_outputs"]:
        lost.append("cache_text_encoder_outputs false is sd-scripts' default; loaded again, it will be true.")
