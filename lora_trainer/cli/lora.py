"""``lora``"""

from __future__ import annotations

import argparse
import json

from lora_trainer.cli.terminal import say
from lora_trainer.errors import ConfigError
from lora_trainer.lora_tools.convert import convert
from lora_trainer.lora_tools.extract import extract
from lora_trainer.lora_tools.files import Made
from lora_trainer.lora_tools.merge import bake, merge, resize
from lora_trainer.lora_tools.ranks import RULES, Wanted, wanted_by
from lora_trainer.lora_tools.show import show


def run_merge(args: argparse.Namespace) -> None:
    """Several as one."""
    if args.conv_rank and not args.rank:
        raise ConfigError("--conv_rank needs --rank; without it nothing is reduced.")
    wanted = Wanted(args.rank, args.conv_rank or args.rank) if args.rank else None
    _told(merge(args.loras, args.ratios, args.output, wanted, args.save_precision, args.overwrite))


def run_resize(args: argparse.Namespace) -> None:
    """Fewer ranks."""
    rules = {rule: getattr(args, rule) for rule in RULES if getattr(args, rule, None) is not None}
    wanted = wanted_by(args.rank, args.conv_rank, rules)
    _told(resize(args.lora, wanted, args.output, args.save_precision, args.overwrite))


def run_extract(args: argparse.Namespace) -> None:
    """From two checkpoints."""
    _told(extract(
        args.base, args.tuned, Wanted(args.rank, args.conv_rank or 0), args.output, args.save_precision,
        args.overwrite, args.clamp_quantile, args.min_diff,
    ))  # fmt: skip


def run_convert(args: argparse.Namespace) -> None:
    """Other keys."""
    _told(convert(args.lora, args.to, args.output, args.save_precision, args.overwrite))


def run_bake(args: argparse.Namespace) -> None:
    """Another strength."""
    _told(bake(args.lora, args.strength, args.output, args.save_precision, args.overwrite))


def run_show(args: argparse.Namespace) -> None:
    """What it is."""
    shown = show(args.lora)
    if args.json:
        say(json.dumps(shown.to_dict(), indent=2))
        return
    for line in shown.lines():
        say(line)
    for name, value in shown.metadata.items():
        say(f"  {name}: {value}")


def _told(made: Made) -> None:
    for line in made.lines:
        say(line)
    say(f"{made.modules} modules written to {made.path}")
