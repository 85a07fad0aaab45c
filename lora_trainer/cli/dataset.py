"""``check`` and ``prepare``"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lora_trainer.cli.settings import read_settings
from lora_trainer.cli.terminal import ProgressBar, agreed, say
from lora_trainer.dataset.changes import Journal
from lora_trainer.dataset.checks.check import Checked, check
from lora_trainer.dataset.plans import plan_for
from lora_trainer.dataset.prepare import prepare
from lora_trainer.dataset.remedies import Remedies, apply
from lora_trainer.dataset.summary import summary, to_json
from lora_trainer.errors import DatasetError, counted, shown


def run_check(args: argparse.Namespace) -> None:
    """Say whether a dataset is fit to train on, what it holds and what is wrong with it."""
    config, _, notices = read_settings(args)
    if args.undo:
        say(f"Taken back: {Journal(args.dataset, args.output).undo()}.")
        return
    with _looking() as seen:
        checked = check(args.dataset, config.dataset, config.caption, args.subject, args.trigger, args.output, seen)
    if args.fix is not None:
        _fix(args, checked)
        return
    if args.json:
        # ASCII, which every pipe carries
        say(json.dumps({**to_json(summary(checked.dataset)), **checked.to_dict()}, indent=2))
        return
    plan = plan_for(args.subject)
    for line in [*notices, *checked.lines(), *(plan.lines(args.subject) if plan else [])]:
        say(line)


def _fix(args: argparse.Namespace, checked: Checked) -> None:
    """Apply the remedies of what was found, after saying what they do."""
    changes = Remedies(args.dataset, args.trigger).changes(checked.findings, args.fix)
    if not changes:
        say("There is nothing that could be put right here.")
        return
    for change in changes:
        say(shown(change))
    if not args.yes and not agreed(f"Do that? It can be undone. ({counted(len(changes), 'change')}) [y/N] ",
                                   "add --yes to do that"):  # fmt: skip
        say("Nothing was changed.")
        return
    say(f"Done: {apply(Journal(args.dataset, args.output), changes)}. 'check --undo' takes that back.")


def run_prepare(args: argparse.Namespace) -> None:
    """Copy photos into a folder that can be trained."""
    if not args.source.expanduser().is_dir():
        raise DatasetError(f"The folder {args.source} doesn't exist; check its path.")
    with _looking() as seen:
        made = prepare([args.source], args.dataset, args.trigger, args.repeats or "", args.subject, args.output, seen,
                       args.crop)  # fmt: skip
    for line in made.lines():
        say(line)


@contextmanager
def _looking() -> Iterator[Callable[..., None]]:
    """A bar for as long as images are looked at; where there is no terminal, the answer stands alone."""
    bar = ProgressBar()

    def seen(done: int, total: int, what: str = "Looking at images") -> None:
        if sys.stdout.isatty():
            bar.update(what, done, total)

    try:
        yield seen
    finally:
        bar.clear()
