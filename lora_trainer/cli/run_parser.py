"""The commands ``runs`` and ``queue``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lora_trainer.cli.arguments import Parser, add_train_options, count, folder, new_command


def add_runs(commands: Any, common: Any) -> None:
    """``runs``"""
    listing = new_command(commands, common, "runs", "runs.run_list", "list all runs; show, delete or forget one")
    _places(listing)
    actions = _actions(listing)
    listed = new_command(actions, common, "list", "runs.run_list", "list all runs, the newest first")
    shown = new_command(
        actions, common, "show", "runs.run_show", "show a run's settings, files and the last lines of its log"
    )
    deleted = new_command(
        actions, common, "delete", "runs.run_delete", "delete what a run left in its folder; asks first",
    )  # fmt: skip
    used = new_command(
        actions, common, "use", "runs.run_use", "let a file that a run saved be its LoRA; what it was is kept"
    )
    forgotten = new_command(
        actions, common, "forget", "runs.run_forget", "don't offer to continue an interrupted run any more"
    )
    for action in (listed, shown, used, deleted, forgotten):
        _places(action, again=True)
    for action in (shown, used, deleted, forgotten):
        action.add_argument("name", metavar="NAME")
    used.add_argument("file", metavar="FILE", help="its name, such as NAME-000006")
    deleted.add_argument("--with-lora", action="store_true", help="also delete the LoRA files that the run wrote")
    deleted.add_argument("--yes", action="store_true", help="don't ask")


def add_queue(commands: Any, common: Any) -> None:
    """``queue``"""
    listing = new_command(commands, common, "queue", "queue.run_list", "train several LoRAs one after the other")
    _places(listing)
    actions = _actions(listing)
    _places(new_command(actions, common, "list", "queue.run_list", "list what the queue holds"), again=True)
    added = new_command(
        actions, common, "add", "queue.run_add", "add a training at the end; takes the options of train",
    )  # fmt: skip
    add_train_options(added)
    edited = new_command(
        actions, common, "edit", "queue.run_edit",
        "change an entry that waits; one that failed or was stopped waits again",
        "The options are those of train; what isn't given stays as it is.",
    )  # fmt: skip
    _number(edited)
    add_train_options(edited)
    edited.add_argument("--no-test", action="store_true", help="don't test the result")
    removed = new_command(actions, common, "remove", "queue.run_remove", "take an entry out")
    moved = new_command(actions, common, "move", "queue.run_move", "change an entry's place")
    for action in (removed, moved):
        _number(action)
        _places(action, again=True)
    moved.add_argument("--to", type=count, required=True, metavar="N", help="1 for the next one to be trained")
    held = new_command(actions, common, "hold", "queue.run_hold", "begin no further entry; the one at work is finished")
    started = new_command(
        actions, common, "start", "queue.run_start", "train what waits, one after the other",
        "Ctrl-C stops the training at hand and holds the queue; 'queue start' goes on with the next one.",
    )  # fmt: skip
    for action in (held, started):
        _places(action, again=True)


def _actions(command: Parser) -> Any:
    return command.add_subparsers(title="actions", metavar="ACTION")


def _number(command: Parser) -> None:
    command.add_argument("id", type=count, metavar="ID", help="the entry's number, as listed")


def _places(command: Parser, again: bool = False) -> None:
    """``--output`` and ``--json``, which may come before an action or after it."""
    leave: Any = argparse.SUPPRESS  # what was given before the action stays
    command.add_argument(
        "--output", type=folder, default=leave if again else Path("output"), metavar="DIR",
        help="the folder of the runs; default: output",
    )  # fmt: skip
    command.add_argument("--json", action="store_true", default=leave if again else False, help="print JSON")
