"""The captions of a dataset as a sheet: every image with its text, changed one by one or many at once.

Before a change the files are kept as they were, byte by byte, in the output folder, so that each change can be undone.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_trainer.config import CaptionConfig
from lora_trainer.dataset.caption_edits import SEPARATOR, edited, said, tags_of
from lora_trainer.dataset.folders import training_folders
from lora_trainer.dataset.known_images import find_image
from lora_trainer.dataset.metadata_file import text_of
from lora_trainer.dataset.remarks import plain
from lora_trainer.dataset.texts import caption_endings, find_caption, read_lines
from lora_trainer.dataset.undo import Entries, coded, coded_path, decoded, decoded_path, put_back
from lora_trainer.errors import ConfigError, DatasetError, FileError, quoted, shown
from lora_trainer.files import read_object, write_json, write_text
from lora_trainer.tokens import counted

FOLDER = "caption-backups"  # in the output folder
AUTOMATIC = "automatic.json"  # beside the backups: which captions a captioner wrote

_changing = threading.Lock()


@dataclass(frozen=True)
class Row:
    """An image and its caption."""

    id: str  # <folder>/<name>
    image: Path
    file: Path  # of the caption, where there is one or where it will be
    text: str  # its non-empty lines; "" where there is no file
    instead: str  # what is trained where the text is empty

    def is_bare(self, words: str) -> bool:
        """Whether the caption is at most these words, which is none yet."""
        return plain(self.text).strip(" ,") in ("", plain(words))

    def to_dict(self, limit: int) -> dict[str, Any]:
        """For JSON; ``limit`` is the number of tokens that the text encoder sees."""
        about = {"id": shown(self.id), "text": shown(self.text), "instead": shown(self.instead)}
        return {**about, **counted_tokens(self.text, limit)}


def counted_tokens(text: str, limit: int) -> dict[str, Any]:
    """The tokens of the longest line, and what of it isn't seen."""
    tokens, cut = max((counted(line, limit) for line in text.splitlines() or [""]), key=lambda found: found[0])
    return {"tokens": tokens, "cut": shown(cut)}


class CaptionSheet:
    """The captions of one dataset, read anew for each change."""

    def __init__(self, dataset: Path, config: CaptionConfig, output: Path) -> None:
        """Args:
            dataset: holds ``<repeats>_<trigger>`` folders, or is one; or a dataset file.
            output: the folder that keeps what was changed.

        Raises:
            DatasetError: if there is no such folder.
        """
        self.dataset = dataset.expanduser().resolve()
        self._root = self.dataset if self.dataset.is_dir() else self.dataset.parent
        self._backups = Entries(output, FOLDER, self.dataset)
        self._endings = caption_endings(config.caption_extension)

    def rows(self) -> list[Row]:
        """Every training image, in the order of the folders; images aren't decoded."""
        found = []
        for name, folder, listing in training_folders(self.dataset):
            for image in listing.images:
                caption = find_caption(image, listing.by_name, self._endings)
                file = caption[0] if caption else image.with_name(image.stem + self._endings[0])
                text = _text(file) if caption else ""
                found.append(Row(f"{name}/{image.name}", image, file, text, folder.trigger))
        return found

    def image(self, id: str) -> Path:
        """The image of that id; captions aren't read.

        Raises:
            FileError: if there is none.
        """
        image = find_image(self.dataset, id)
        if image is not None:
            return image
        raise FileError(f"There is no image {quoted(id)} in {self.dataset}; load the captions again.")

    def set(self, id: str, text: str, before: str) -> list[Row]:
        """Write one caption.

        Args:
            before: the text that it takes the place of: what somebody else wrote meanwhile isn't overwritten.

        Returns:
            The rows that changed.
        """
        with _changing:
            image = self.image(id)
            row = next(row for row in self.rows() if row.image == image)
            if shown(row.text) != before:
                raise ConfigError(f"{shown(row.file.name)} was changed meanwhile; load the captions again.")
            return self._write([(row, _tidy(text))], said("set"))

    def edit(self, edit: str, words: str, instead: str = "", ids: Sequence[str] | None = None) -> list[Row]:
        """Change many captions; ``ids`` are those of the images, None for all.

        Returns:
            The rows that changed.

        Raises:
            LoraTrainerError: one sentence.
        """
        wanted = None if ids is None else set(ids)
        with _changing:
            chosen = [row for row in self.rows() if wanted is None or shown(row.id) in wanted]
            keep_trigger = edit == "leave_out"
            changes = [(row, _tidy(edited(row.text, edit, words, row.instead if keep_trigger else instead)))
                       for row in chosen]  # fmt: skip
            return self._write(changes, said(edit, words, instead))

    def take(self, texts: dict[str, str], existing: str) -> list[Row]:
        """Write the captions that a metadata file has for images; gives the rows that changed.

        Args:
            texts: as :func:`lora_trainer.dataset.metadata_file.read_metadata` gives them.
            existing: what becomes of captions that are there: ``skip``, ``append`` or ``replace``. The folder's words
                alone are none yet, but stay before the text, unless that has them.

        Raises:
            ConfigError: if it has none of the images.
        """
        with _changing:
            found = [(row, text) for row in self.rows() if (text := text_of(row.image, texts))]
            if not found:
                raise ConfigError(
                    f"The metadata file has no text for the images in {self.dataset}; give the one that was made of "
                    "them: images are known by their names."
                )
            changes = []
            for row, text in found:
                bare = row.is_bare(row.instead)
                if existing == "replace" or not row.text or (bare and plain(row.instead) in plain(text)):
                    changes.append((row, _tidy(text)))
                elif existing == "append" or bare:
                    changes.append((row, _tidy(f"{row.text.rstrip(' ,')}{SEPARATOR}{text}")))
            return self._write(changes, said("metadata"))

    def tags(self, rows: Sequence[Row]) -> list[tuple[str, int]]:
        """How many captions have each tag, the most frequent first."""
        counts = Counter(tag for row in rows for tag in {tag.lower() for line in row.text.splitlines()
                                                         for tag in tags_of(line)})  # fmt: skip
        return sorted(counts.items(), key=lambda item: (-item[1], item[0]))

    @property
    def undoable(self) -> str:
        """What :meth:`undo` would take back; "" if there is nothing."""
        return self._backups.undoable

    def undo(self) -> list[Row]:
        """Put the files back as they were before the last change that wasn't taken back yet.

        Raises:
            FileError: if there is none, or a file can't be written; if a file was changed or moved by others since,
                nothing is touched.
        """
        with _changing:
            newest = self._backups.newest
            if newest is None:
                raise FileError("There is no change of these captions to take back.")
            try:
                files, written = dict[Path, bytes | None](), dict[Path, str]()
                for name, content, *digest in read_object(newest)["files"]:
                    path = decoded_path(name, self._root)
                    files[path] = None if content is None else decoded(content)
                    if digest:
                        written[path] = str(digest[0])
            except (KeyError, TypeError, ValueError) as error:
                raise FileError(f"{newest} is damaged; the captions can't be put back from it.") from error
            other = [path for path in written if _differs(path, files[path], written[path])]
            if other:
                raise FileError(
                    f"This can't be taken back, as {shown(other[0].name)} was changed, moved or deleted since; take "
                    "back first what moved it, or put the captions back by hand."
                )
            before = {row.id: row.text for row in self.rows()}
            for path, content in files.items():
                put_back(path, content)
            newest.unlink()
            return [row for row in self.rows() if row.text != before.get(row.id)]

    def describe(self) -> LongChange:
        """Begin to write automatic captions."""
        return LongChange(self, said("describe"))

    def automatic(self) -> dict[str, str]:
        """By the id of its image the hash of each automatic caption, as it was written."""
        try:
            found = read_object(self._backups.folder / AUTOMATIC)
        except FileError:  # there is none yet, or it is damaged: then all captions count as somebody's own
            return {}
        return {id: digest for id, digest in found.items() if isinstance(digest, str)}

    def remember(self, written: Sequence[Row]) -> None:
        """These captions are automatic."""
        marks = {shown(row.id): fingerprint(row.text) for row in written}
        write_json(self._backups.folder / AUTOMATIC, {**self.automatic(), **marks})

    def _write(self, changes: Sequence[tuple[Row, str]], what: str) -> list[Row]:
        return LongChange(self, what).write(changes)

    def keep(self, file: Path | None, files: dict[Path, bytes | None], written: dict[Path, str], what: str) -> Path:
        """Keep what files held before a change.

        Args:
            written: the hash of what each file holds after it, by which a later change by others is noticed.
            file: the backup that is written anew, with more files than before; None for a new one.
        """
        rows = [(coded_path(path, self._root), None if content is None else coded(content), written[path])
                for path, content in files.items()]  # fmt: skip
        return self._backups.write(what, {"files": rows}, file)


class LongChange:
    """Captions that are changed a few at a time, and taken back at once."""

    def __init__(self, sheet: CaptionSheet, what: str) -> None:
        self._sheet, self._what = sheet, what
        self._before: dict[Path, bytes | None] = {}
        self._after: dict[Path, str] = {}
        self._file: Path | None = None

    def write(self, changes: Sequence[tuple[Row, str]]) -> list[Row]:
        """Write these captions; gives the rows that changed. Hold the lock, or use :meth:`add`."""
        changes = [(row, text) for row, text in changes if text != row.text]
        if not changes:
            return []
        for row, text in changes:
            self._before.setdefault(row.file, row.file.read_bytes() if row.file.exists() else None)
            self._after[row.file] = _digest(text.replace("\n", os.linesep).encode("utf-8", "backslashreplace"))
        self._file = self._sheet.keep(self._file, self._before, self._after, self._what)
        for row, text in changes:
            write_text(row.file, text)
        return [Row(row.id, row.image, row.file, text, row.instead) for row, text in changes]

    def add(self, changes: Sequence[tuple[Row, str]]) -> list[Row]:
        """Write these, too, but none that somebody changed or whose image is gone since its row was read."""
        with _changing:
            same = [(row, text) for row, text in changes if row.image.exists() and _text(row.file) == row.text]
            written = self.write(same)
            self._sheet.remember(written)
            return written


def fingerprint(text: str) -> str:
    """By which a caption is known again."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _differs(path: Path, before: bytes | None, written: str) -> bool:
    """Whether a file holds neither what was written nor, where that failed, what was there before."""
    if not path.exists():
        return before is not None or not path.parent.is_dir()
    try:
        now = path.read_bytes()
    except OSError:
        return True
    return now != before and _digest(now) != written


def _text(file: Path) -> str:
    """The non-empty lines of a caption file; "" where there is none.

    Raises:
        DatasetError: if it can't be read.
    """
    try:
        return "\n".join(read_lines(file)[0])
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise DatasetError(f"The caption {file} can't be read ({error.strerror}); check its permissions.") from error


def _tidy(text: str) -> str:
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())
