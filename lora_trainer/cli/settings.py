"""Putting settings together from ``--preset``, ``--config`` and ``--set``; the ``config`` commands."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_trainer.cli.terminal import say
from lora_trainer.config import OPTIONS, OptionRow, RunConfig, parse_assignments
from lora_trainer.errors import ConfigError, LoraTrainerError, NameTakenError
from lora_trainer.files import write_json

if TYPE_CHECKING:
    from lora_trainer.hosts.base import Glance


# what a kohya file has beside options -> where it is said here
ARGUMENTS = {
    "pretrained_model_name_or_path": "--checkpoint", "train_data_dir": "--dataset",
    "dataset_config": "--dataset", "output_name": "--name",
    "output_dir": "--lora-dir", "vae": "--vae",
}  # fmt: skip


def read_settings(args: argparse.Namespace) -> tuple[RunConfig, dict[str, Any], list[str]]:
    """Settings, the paths and names that a kohya file brings along, and lines for the user.

    ``--set`` wins over ``--config``, which takes the place of ``--preset``. A run that is to be continued has its own,
    and knows its checkpoint and its folders.
    """
    preset = getattr(args, "preset", None)
    if preset and args.config:
        raise ConfigError(
            "--preset and --config can't be combined; give one of them, and change single options with --set."
        )
    config, notices = RunConfig(), []
    fields: dict[str, Any] = {}
    if getattr(args, "resume", False) and args.name:
        config, fields = _of_run(args)
    if args.config:
        from lora_trainer.kohya import load_config

        loaded = load_config(args.config)
        config, fields, notices = loaded.config, {**fields, **loaded.fields}, loaded.notices
    elif preset:
        from lora_trainer.config.presets import find_preset
        from lora_trainer.fitting import fitted

        config, notices = fitted(find_preset(preset), _glance(args.checkpoint), _defaults(args.checkpoint))
    elif not fields:
        config = config.replace(**_defaults(getattr(args, "checkpoint", None)))
    return config.replace(**parse_assignments(args.set)), fields, list(notices)


def _of_run(args: argparse.Namespace) -> tuple[RunConfig, dict[str, Any]]:
    """What the run that is to be continued was started with; nothing where it doesn't say, but all of that is given."""
    from lora_trainer.runs.recorded import recorded

    try:
        found = recorded(args.output or Path("output"), args.name)
    except LoraTrainerError:
        if args.checkpoint and args.dataset:
            return RunConfig(), {}
        raise
    fields = {
        "pretrained_model_name_or_path": found.checkpoint_path, "train_data_dir": found.dataset,
        "output_dir": found.lora_dir, "vae": found.vae_path,
    }  # fmt: skip
    return RunConfig.from_dict(found.config), {key: value for key, value in fields.items() if value}


def _glance(checkpoint: Path | None) -> Glance | None:
    """What the checkpoint's header says; None where that can't be told, which is said when it is opened."""
    if checkpoint is None:
        return None
    from lora_trainer.hosts.standalone.host import DiffusersHost

    found = DiffusersHost(checkpoint, Path()).glance()
    return None if found is None or found.refusal else found


def _defaults(checkpoint: Path | None) -> dict[str, Any]:
    """Options that follow from the checkpoint's header."""
    if checkpoint is None:
        return {}  # without the seconds that the host's libraries take to be imported
    from lora_trainer.hosts.standalone.host import DiffusersHost

    return DiffusersHost(checkpoint, Path()).defaults()


def typed_paths(args: argparse.Namespace) -> frozenset[str]:
    """Class paths that were typed in ``--set``: only those may come from packages that aren't known here."""
    values = parse_assignments(args.set)
    return frozenset(str(values[name]).strip() for name in ("optimizer_type", "lr_scheduler_type") if values.get(name))


def run_convert(args: argparse.Namespace) -> None:
    """``config convert``"""
    from lora_trainer.dataset.dataset_file import alone, holds_datasets
    from lora_trainer.kohya import load_config, save_kohya, save_toml

    if args.target.exists() and args.source.exists() and args.target.samefile(args.source):
        raise ConfigError(f"{args.target} is the file to convert; give another name for the result.")
    if args.target.exists() and not args.overwrite:
        raise NameTakenError(f"{args.target} exists already. Replace it, or give another name.", ("overwrite",))
    if args.source.is_dir() or holds_datasets(args.source):
        _convert_dataset(args)
        return
    loaded = load_config(args.source)
    fields = dict(loaded.fields)
    if (file := fields.get("dataset_config")) and Path(file).is_file():
        fields["dataset_config"] = alone(Path(file), args.target)
    if args.target.suffix.lower() == ".toml":
        notices = [*loaded.notices, *save_toml(loaded.config, args.target, fields)]
        say(f"Written: {args.target}; use it with sd-scripts as --config_file, or here with --config")
    elif loaded.kind == "own":
        notices = save_kohya(loaded.config, args.target, fields)
        say(f"Written as kohya's JSON: {args.target}")
    else:
        kept = {name: fields.pop(name) for name in ("dataset_config",) if fields.get(name)}
        write_json(args.target, {**loaded.config.to_dict(), **kept})
        notices = loaded.notices
        say(f"Written: {args.target}; use it with --config")
        left_out = [f"{name} ({ARGUMENTS[name]})" for name in fields if name in ARGUMENTS]
        if left_out:
            say(f"The file holds options only; not written, to be given on the command line: {', '.join(left_out)}.")
    for line in notices:
        say(line)


def _convert_dataset(args: argparse.Namespace) -> None:
    """A dataset, folder or file, as a dataset file."""
    from lora_trainer.dataset.dataset_file import ENDINGS, write_dataset_file
    from lora_trainer.dataset.folders import scan

    if args.target.suffix.lower() not in ENDINGS:
        raise ConfigError(f"{args.target} can't be written: give a name that ends in {' or '.join(ENDINGS)}.")
    config = RunConfig()
    found = scan(args.source, config.dataset, config.caption)
    unlike = write_dataset_file(args.target, found.folders)
    say(f"Written: {args.target}; use it with --dataset, or with sd-scripts as --dataset_config")
    for line in (*unlike, *found.notices):
        say(line)


def run_options(args: argparse.Namespace) -> None:
    """``config options``"""
    if args.json:
        say(json.dumps([asdict(row) for row in OPTIONS.values()], indent=2, default=list))
        return
    group = ""
    for row in OPTIONS.values():
        if row.group != group:
            group = row.group
            say(f"\n[{group}]")
        say(f"  {row.name} = {shown(row.default)}")
        say(f"      {row.help}{limits(row)}")


def shown(value: Any) -> str:
    """A value as ``--set`` takes it."""
    if isinstance(value, (tuple, list)):
        return ",".join(map(str, value))
    if isinstance(value, dict):
        return " ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def limits(row: OptionRow) -> str:
    """What is allowed, as the end of a help line."""
    if row.choices:
        return f" One of {', '.join(map(str, row.choices))}."
    low, high = row.minimum, row.maximum
    unit = f" {row.unit}" if row.unit else ""
    if low is not None and high is not None:
        return f" {low:g} to {high:g}{unit}."
    if low is not None:
        return f" At least {low:g}{unit}."
    return f" At most {high:g}{unit}." if high is not None else ""


def run_presets(args: argparse.Namespace) -> None:
    """``config presets``"""
    from lora_trainer.config.presets import PRESETS

    if args.json:
        say(json.dumps([asdict(preset) for preset in PRESETS], indent=2, default=str))
        return
    for preset in PRESETS:
        say(f"{preset.name}\n    {preset.help}")


def given_or(value: Path | None, field: Any) -> Path | None:
    """A path from the command line, else from the configuration."""
    return value or (Path(str(field)).expanduser() if field else None)
