"""``check``"""

from __future__ import annotations

import argparse
import json
import sys

from lora_trainer.cli.settings import read_settings
from lora_trainer.cli.terminal import ProgressBar, say
from lora_trainer.dataset.checks.check import check
from lora_trainer.dataset.summary import summary, to_json


def run_check(args: argparse.Namespace) -> None:
    """Say whether a dataset is fit to train on, what it holds and what is wrong with it."""
    config, _, notices = read_settings(args)
    bar = ProgressBar()

    def seen(done: int, total: int) -> None:
        if sys.stdout.isatty():  # elsewhere the answer stands alone
            bar.update("Looking at images", done, total)

    checked = check(args.dataset, config.dataset, config.caption, args.subject, args.trigger, args.output, seen)
    bar.clear()
    if args.json:
        # ASCII, which every pipe carries
        say(json.dumps({**to_json(summary(checked.dataset)), **checked.to_dict()}, indent=2))
        return
    for line in [*notices, *checked.lines()]:
        say(line)
