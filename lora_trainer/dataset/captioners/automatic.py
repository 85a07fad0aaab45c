"""Captions for all images of a dataset, written by a captioner: a few at a time, and taken back at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lora_trainer.dataset.caption_sheet import CaptionSheet, LongChange, Row, fingerprint
from lora_trainer.dataset.captioners.wording import Wording, caption_of, combined
from lora_trainer.dataset.decode import read_image
from lora_trainer.dataset.findings import names
from lora_trainer.errors import DatasetError, NameTakenError, counted, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from lora_trainer.hosts.base import Captioner

PORTION = 20  # captions that are written together


@dataclass(frozen=True)
class ImageDescribed:
    """One more image was looked at."""

    done: int
    total: int
    id: str
    text: str  # the caption; "" where the image can't be read


@dataclass(frozen=True)
class AllDescribed:
    """The end. ``skipped``: images that had a caption, or whose caption was changed meanwhile."""

    written: int
    skipped: int
    unreadable: tuple[str, ...]  # a line for each
    stopped: bool = False

    @property
    def sentence(self) -> str:
        """For a person."""
        told = f"{counted(self.written, 'caption')} written"
        if self.skipped:
            told += f", {counted(self.skipped, 'image')} left as {'it was' if self.skipped == 1 else 'they were'}"
        told += f", {counted(len(self.unreadable), 'image')} can't be read" if self.unreadable else ""
        return f"{'Stopped: ' if self.stopped else ''}{told}."


def chosen(sheet: CaptionSheet, wording: Wording, overwrite: bool) -> list[Row]:
    """The images that get a caption. The trigger word alone is none yet.

    Raises:
        NameTakenError: if captions that somebody wrote or edited would be replaced, and nobody allowed that.
    """
    rows = sheet.rows()
    bare = [row for row in rows if row.is_bare(wording.trigger or row.instead)]
    if wording.existing == "skip":
        return bare
    if wording.existing == "replace" and not overwrite:
        automatic, known = sheet.automatic(), {row.id for row in bare}
        own = [row for row in rows if row.id not in known and automatic.get(shown(row.id)) != fingerprint(row.text)]
        if own:
            few = names([row.file.name for row in own])
            which = "1 caption was" if len(own) == 1 else f"{len(own)} captions were"
            raise NameTakenError(f"{which} written or edited by hand ({few}). Replace them, too?", ("overwrite",))
    return rows


def describe_all(
    sheet: CaptionSheet,
    rows: Sequence[Row],
    captioner: AbstractContextManager[Captioner] | Captioner,
    wording: Wording,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[ImageDescribed | AllDescribed]:
    """Describe the images of these rows. What was described is written, however it ends.

    Args:
        stopped: asked before each image.
    """
    change, waiting, failed = sheet.describe(), list[tuple[Row, str]](), list[str]()
    written = looked = 0
    opened = captioner if isinstance(captioner, AbstractContextManager) else nullcontext(captioner)
    with opened as model:
        try:
            for row in rows:
                if stopped():
                    break
                text = ""
                try:
                    text = _caption(row, model, wording)
                    waiting.append((row, text))
                except DatasetError as error:
                    failed.append(str(error))
                looked += 1
                if len(waiting) >= PORTION:
                    written += _written(change, waiting)
                yield ImageDescribed(looked, len(rows), row.id, text)
        finally:
            written += _written(change, waiting)
    left = len(sheet.rows()) - written - len(failed)
    yield AllDescribed(written, left, tuple(failed), looked < len(rows))


def _written(change: LongChange, waiting: list[tuple[Row, str]]) -> int:
    done = [*waiting]
    waiting.clear()
    return len(change.add(done))


def _caption(row: Row, model: Captioner, wording: Wording) -> str:
    trigger = wording.trigger or row.instead
    image, _ = read_image(row.image)
    made = caption_of(model.describe(image), wording, trigger)
    return combined(row.text, made, trigger) if wording.existing == "append" and row.text else made
