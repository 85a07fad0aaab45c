"""``caption``"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from lora_trainer.cli.terminal import ProgressBar, say, status_after, stop_on_signals
from lora_trainer.config import CaptionConfig
from lora_trainer.dataset.caption_sheet import CaptionSheet, Row
from lora_trainer.dataset.metadata_file import read_metadata
from lora_trainer.dataset.plans import plan_for
from lora_trainer.errors import ConfigError, counted, shown
from lora_trainer.training.events import CancelToken

if TYPE_CHECKING:
    from lora_trainer.dataset.captioners.automatic import AllDescribed, ImageDescribed

EDITS = ("prefix", "append", "remove", "first", "leave_out")


def run_caption(args: argparse.Namespace) -> int:
    """Show the captions of a dataset, change many at once, or have them written by a captioner."""
    sheet = CaptionSheet(args.dataset, CaptionConfig(), args.output)
    asked = [(edit, getattr(args, edit), "") for edit in EDITS if getattr(args, edit) is not None]
    if args.replace:
        asked.append(("replace", *args.replace))
    if len(asked) + args.undo + bool(args.captioner) + bool(args.metadata) > 1:
        raise ConfigError("Give one change at a time, so that each can be taken back.")
    if args.captioner:
        return _describe(args, sheet)
    if args.metadata:
        _told(sheet.take(read_metadata(args.metadata), args.existing), "--undo takes that back")
    elif args.undo:
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
    return 0


def _told(rows: list[Row], more: str) -> None:
    say(f"{counted(len(rows), 'caption')} changed{f'; {more}' if rows else ''}.")


def _quiet_libraries() -> None:
    """transformers draws a bar for each file that it reads, and warns of packages that we don't need."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _describe(args: argparse.Namespace, sheet: CaptionSheet) -> int:
    """Automatic captions, with progress; Ctrl-C keeps what was described."""
    from lora_trainer.dataset.captioners.automatic import ImageDescribed, chosen, describe_all
    from lora_trainer.dataset.captioners.kinds import kind_of, opened
    from lora_trainer.dataset.captioners.wording import Wording

    plan_for(args.subject)  # refuses an unknown kind
    kind = kind_of(args.captioner)
    least = kind.threshold if args.threshold is None else args.threshold
    deny = tuple(tag.strip() for tag in args.deny.split(",") if tag.strip())
    wording = Wording(args.existing, args.trigger, args.subject, least, deny)
    rows = chosen(sheet, wording, args.overwrite)
    token, bar = CancelToken(), ProgressBar()
    with stop_on_signals(token) as came:
        _quiet_libraries()
        captioner = opened(kind.name, args.captioner_model)
        end: ImageDescribed | AllDescribed | None = None
        for end in describe_all(sheet, rows, captioner, wording, lambda: token.cancelled):
            if isinstance(end, ImageDescribed):
                bar.update("Describing images", end.done, end.total)
        bar.clear()
    assert end is not None and not isinstance(end, ImageDescribed)
    for line in end.unreadable:
        say(f"Skipped: {line}")
    say(shown(f"{end.sentence}{' --undo takes that back.' if end.written else ''}"))
    return status_after(came)
