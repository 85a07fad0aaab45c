"""Loading a configuration: ours, kohya's form, or sd-scripts' names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lora_trainer.config import OPTIONS, RunConfig
from lora_trainer.config.checks import without_warmup
from lora_trainer.errors import ConfigError, quoted, shortened
from lora_trainer.files import read_json
from lora_trainer.kohya.arguments import read_flat
from lora_trainer.kohya.draft import Draft, is_off
from lora_trainer.kohya.form import read_form, refuse_other_tabs
from lora_trainer.kohya.names import FORM_ONLY, OLD_NAMES
from lora_trainer.kohya.types import settle_type
from lora_trainer.toml_file import key_lines, read_toml

Kind = Literal["own", "kohya", "sd-scripts"]
OTHER_FORMATS = (".yaml", ".yml")  # in which other trainers keep settings


@dataclass(frozen=True)
class KohyaImport:
    """A kohya configuration as we read it.

    ``fields`` holds what isn't part of a run's options, by kohya's names and only where given: paths
    (``pretrained_model_name_or_path``, ``vae``, ``train_data_dir``, ``dataset_config``, ``output_dir``,
    ``logging_dir``, ``resume``), ``output_name``, and what the file believes of the checkpoint (``v2``, ``sdxl``,
    ``v_parameterization``).
    ``notices`` are lines for the user, one per reason.
    """

    config: RunConfig
    fields: dict[str, Any] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class LoadedConfig(KohyaImport):
    """A configuration of any kind, with the kind it was."""

    kind: Kind = "own"


def load_config(path: str | Path | dict[str, Any]) -> LoadedConfig:
    """Load a file: our own JSON (also ``run.json``), kohya's LoRA form, or sd-scripts' names as JSON or TOML.

    Our own may have a ``dataset_config``: the path of a dataset file, or the content of one. With the content, the file
    that is loaded is the dataset file that ``fields`` names.

    Raises:
        FileError: if the file can't be read, or isn't JSON.
        ConfigError: if it holds what is unknown, wrong or not offered; names the key.
    """
    source, data, lines = _read(path)
    kind = "sd-scripts" if lines and not _is_form(data) else _kind(data)  # TOML is sd-scripts', sections or not
    if kind == "own":
        options = {name: value for name, value in data.items() if name != "dataset_config"}
        inner = options.get("config")
        try:
            config = RunConfig.from_dict(inner if isinstance(inner, dict) else options)
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from None
        dataset = _dataset_of(source, path, data.get("dataset_config"))
        return LoadedConfig(config, {"dataset_config": dataset} if dataset else {})
    found = _load(source, data, kind, lines)
    return LoadedConfig(found.config, found.fields, found.notices, kind)


def load_kohya(path: str | Path | dict[str, Any]) -> KohyaImport:
    """Load the JSON of kohya's LoRA form, or one with sd-scripts' option names.

    Raises:
        FileError: if the file can't be read, or isn't JSON.
        ConfigError: if it holds what is unknown, wrong or not offered; names the key.
    """
    source, data, lines = _read(path)
    return _load(source, data, "kohya" if _is_form(data) else "sd-scripts", lines)


def _load(source: str, data: dict[str, Any], kind: Kind, lines: Mapping[str, int]) -> KohyaImport:
    refuse_other_tabs(data, source)
    data = _todays_names(data)
    draft = Draft(source, lines)
    (read_form if kind == "kohya" else read_flat)(draft, data)
    settle_type(draft)
    _agree(draft)
    return KohyaImport(draft.finish(), draft.fields, draft.notices)


def _read(path: str | Path | dict[str, Any]) -> tuple[str, dict[str, Any], Mapping[str, int]]:
    """The name for messages, the content, and the lines of its names where it is TOML."""
    if isinstance(path, dict):
        return "The configuration", path, {}
    path = Path(path)
    if path.suffix.lower() in OTHER_FORMATS and path.is_file():
        raise ConfigError(
            f"{path.name} is a {path.suffix[1:].upper()} file, which isn't read; give a JSON file, as the LoRA tab of "
            "kohya's GUI saves it, sd-scripts' TOML, or the options in docs/options.md as JSON."
        )
    is_toml = path.suffix.lower() == ".toml"
    data = read_toml(path) if is_toml else read_json(path)
    if isinstance(data, dict) and "datasets" in data:
        raise ConfigError(
            f"{shortened(path.name)} is a dataset file (it has [[datasets]]) and no training's options; give it in the "
            "place of the images' folder (--dataset)."
        )
    if not isinstance(data, dict):
        raise ConfigError(f"{shortened(path.name)} holds no configuration; it must be a JSON object with option names.")
    lines = {str(key[-1]): line for key, line in key_lines(path).items()} if is_toml else {}
    return shortened(path.name), data, lines


def _dataset_of(source: str, path: str | Path | dict[str, Any], given: Any) -> str:
    """The dataset file that settings of ours name, or that they are; "" if there is none."""
    if isinstance(given, str) or given is None:
        beside = None if isinstance(path, dict) or not given else Path(path).parent / given
        return str(beside) if given and beside and beside.is_file() and not Path(given).is_file() else given or ""
    if isinstance(given, dict) and not isinstance(path, dict):
        return str(path)
    raise ConfigError(
        f"{source}: dataset_config can't be {quoted(given)}; give the path or the content of a dataset file."
    )


def _todays_names(data: dict[str, Any]) -> dict[str, Any]:
    """Old names replaced; where a file has both, today's wins unless it is empty. A null says nothing."""
    result = {name: value for name, value in data.items() if value is not None}
    for old, new in OLD_NAMES.items():
        value = result.pop(old, None)
        if value is not None and is_off(result.get(new)):
            result[new] = value
    return result


def _is_form(data: dict[str, Any]) -> bool:
    return any(name in data for name in FORM_ONLY)


def _kind(data: dict[str, Any]) -> Kind:
    if "version" in data or (isinstance(data.get("config"), dict) and "version" in data["config"]):
        return "own"
    if _is_form(data):
        return "kohya"
    carried = {"dataset_config"} if isinstance(data.get("dataset_config"), dict) else set()
    return "own" if data.keys() - carried <= OPTIONS.keys() else "sd-scripts"


def _agree(draft: Draft) -> None:
    """What kohya lets stand side by side, or fails on later, made to agree; each change is told."""
    values = draft.values
    if draft.fields.get("dataset_config"):
        for name, place in (("train_data_dir", draft.fields), ("reg_data_dir", values)):
            if place.pop(name, None):
                draft.idle(name, "dataset_config says which images are used")
    _agree_caches(draft)
    config = RunConfig()  # defaults for what isn't set
    side = values.get("resolution", (512, 512))
    if not values.get("enable_bucket", True) and any(pixels % 8 for pixels in side):
        values["resolution"] = tuple(pixels // 8 * 8 for pixels in side)
        draft.notices.append(f"resolution {side[0]},{side[1]} is rounded down to multiples of 8.")
    steps = values.get("bucket_reso_steps", config.dataset.bucket_reso_steps)
    if steps % 8:
        values["bucket_reso_steps"] = -(-steps // 64) * 64
        draft.notices.append(
            f"bucket_reso_steps {steps} isn't possible (kohya refuses it, too); using {values['bucket_reso_steps']}."
        )
    deciding = ("lr_scheduler", "lr_scheduler_type", "optimizer_type", "optimizer_args")
    without = without_warmup(config.replace(**{name: values[name] for name in deciding if name in values}))
    if values.get("lr_warmup_steps") and without:
        values["lr_warmup_steps"] = 0.0
        if not draft.warmup_assumed:
            draft.notices.append(f"The warm-up is left out, because {without} has none.")
    if not any(values.get(name) for name in ("block_dims", "down_lr_weight", "mid_lr_weight", "up_lr_weight")):
        for name in ("block_alphas", "conv_block_dims", "conv_block_alphas"):
            if values.pop(name, None):
                draft.idle(name, "works only together with block_dims")


def _agree_caches(draft: Draft) -> None:
    values = draft.values
    if values.get("cache_latents_to_disk"):
        values["cache_latents"] = True
    for name in ("color_aug", "random_crop"):
        if values.get(name) and values.get("cache_latents", True):
            values["cache_latents"] = values["cache_latents_to_disk"] = False
            draft.notices.append(f"cache_latents is switched off, because {name} changes the images each time.")
    if not values.get("cache_text_encoder_outputs", True):
        del values["cache_text_encoder_outputs"]  # kohya can't cache where we can; the result is the same
    if values.get("cache_text_encoder_outputs_to_disk"):
        values["cache_text_encoder_outputs"] = True
