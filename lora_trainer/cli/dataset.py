"""``check``"""

from __future__ import annotations

import argparse
import json

from lora_trainer.cli.settings import read_settings
from lora_trainer.cli.terminal import say
from lora_trainer.dataset.folders import scan
from lora_trainer.dataset.summary import describe, summary, to_json


def run_check(args: argparse.Namespace) -> None:
    """Say what a dataset holds and what is wrong with it."""
    config, _, notices = read_settings(args)
    facts = summary(scan(args.dataset, config.dataset, config.caption))
    if args.json:
        say(json.dumps(to_json(facts), indent=2))  # ASCII, which every pipe carries
        return
    for line in [*notices, *describe(facts)]:
        say(line)
