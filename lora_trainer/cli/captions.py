"""``caption``"""

from __future__ import annotations

import argparse

from lora_trainer.cli.terminal import say
from lora_trainer.config import CaptionConfig
from lora_trainer.dataset.caption_sheet import CaptionSheet, Row
from lora_trainer.errors import ConfigError, counted, shown

EDITS = ("prefix", "append", "remove", "first")


def run_caption(args: argparse.Namespace) -> None:
    """Show the captions of a dataset, or change many at once."""
    sheet = CaptionSheet(args.dataset, CaptionConfig(), args.output)
    asked = [(edit, getattr(args, edit), "") for edit in EDITS if getattr(args, edit) is not None]
    if args.replace:
        asked.append(("replace", *args.replace))
    if len(asked) + args.undo > 1:
        raise ConfigError("Give one change at a time, so that each can be taken back.")
    if args.undo:
        what = sheet.undoable
        _told(sheet.undo(), f"taken back: {what}")
    elif asked:
        edit, words, instead = asked[0]
        _told(sheet.edit(edit, words, instead), "--undo takes that back")
    elif args.tags:
        for tag, number in sheet.tags(sheet.rows()):
            say(f"{number:6}  {shown(tag)}")
    else:
        for row in sheet.rows():
            lines = row.text.splitlines() or [f"({row.instead})" if row.instead else "(none)"]
            say(shown(f"{row.id}: {' | '.join(lines)}"))


def _told(rows: list[Row], more: str) -> None:
    say(f"{counted(len(rows), 'caption')} changed{f'; {more}' if rows else ''}.")
