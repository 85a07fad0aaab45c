"""What a finding's remedy does, where a program can do it: nothing is deleted, and every change can be undone.

Files are moved into the dataset's folder ``set-aside``, captions are rewritten, folders renamed, and copies cropped.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from lora_trainer.config import DatasetConfig
from lora_trainer.dataset.caption_edits import with_first, with_prefix
from lora_trainer.dataset.changes import Change, Cut, Journal, Move, Write
from lora_trainer.dataset.checks.looks import take_look
from lora_trainer.dataset.copies import read_record
from lora_trainer.dataset.crops import crop_of, obstacle
from lora_trainer.dataset.findings import Finding, names
from lora_trainer.dataset.layout import SET_ASIDE, list_folder, parse_name, suggested_name
from lora_trainer.dataset.masks import MASK
from lora_trainer.dataset.remarks import plain
from lora_trainer.dataset.subject import Box
from lora_trainer.dataset.texts import USUAL_ENDINGS, find_caption, read_lines
from lora_trainer.errors import ConfigError, counted, quoted, shown

ASIDE = ("duplicate", "near_duplicate", "unreadable", "mask", "orphan_captions", "blur", "underexposed", "overexposed")
FIRST = ("trigger_missing", "trigger_not_first")
RENAMED = ("repeats", "ignored_folder")
# By taste, or perhaps meant so (kohya's 0_… folders are switched off): only where somebody asks for that very one.
JUDGED = ("blur", "underexposed", "overexposed", "ignored_folder")
LABELS = {
    **dict.fromkeys(ASIDE, "Set aside"), **dict.fromkeys(FIRST, "Put it first"), **dict.fromkeys(RENAMED, "Rename"),
    "borders": "Crop off", "caption_encoding": "Save as UTF-8", "nested_images": "Move up",
}  # fmt: skip


class Remedies:
    """The remedies of one dataset."""

    def __init__(self, dataset: Path, trigger: str = "") -> None:
        """Args:
        dataset: holds ``<repeats>_<trigger>`` folders, or is one; or a dataset file.
        trigger: the word that the LoRA will be called by; "" for the folders' own words.
        """
        whole = dataset.expanduser().resolve()
        self.dataset, self.trigger = whole if whole.is_dir() else whole.parent, trigger.strip()
        self._taken: set[Path] = set()  # files that are moved, and the names that they get
        self._named: dict[Path, dict[str, Path]] = {}  # of a folder the files by their names
        self._stems: dict[Path, set[str]] = {}  # of a folder that files are moved to, with those that they get

    def changes(self, findings: Iterable[Finding], kinds: Sequence[str] = ()) -> list[Change]:
        """What is to be done, in order; nothing is touched.

        Args:
            kinds: of the findings; without any, all but those that are a matter of taste.

        Raises:
            ConfigError: if there is no remedy for such a kind.
        """
        unknown = [kind for kind in kinds if kind not in LABELS]
        if unknown:
            raise ConfigError(f"There is no remedy for {quoted(unknown[0])}; there are some for {', '.join(LABELS)}.")
        wanted = [one for one in findings if (one.kind in kinds if kinds else one.kind not in JUDGED)]
        wanted.sort(key=lambda one: one.kind not in ASIDE)  # what is set aside isn't changed, too
        return [change for finding in wanted if self.label(finding) for change in self._of(finding)]

    def label(self, finding: Finding) -> str:
        """What the button of a finding says; "" where only a person can help."""
        if finding.kind == "borders" and not any(read_record(image.parent) for image in finding.files):
            return ""  # nobody's own files are cropped
        if finding.kind in RENAMED and self.dataset in (path.resolve() for path in finding.files):
            return ""  # the dataset keeps the name by which it is known
        if finding.kind in RENAMED and any(map(os.path.lexists, map(_renamed, finding.files))):
            return ""  # with a number behind it, the name would be another trigger word
        if finding.kind == "nested_images" and all(path.is_symlink() for path in finding.files):
            return ""  # what lies elsewhere isn't the dataset's to move
        return LABELS.get(finding.kind, "") if finding.files else ""

    def _of(self, finding: Finding) -> Iterator[Change]:
        if finding.kind in ASIDE:
            yield from self._aside(finding.files)
        elif finding.kind in FIRST:
            yield from self._first(finding.files)
        elif finding.kind in RENAMED:
            for folder in finding.files:
                if _renamed(folder) not in self._taken:
                    self._taken.add(_renamed(folder))
                    yield Move(folder, _renamed(folder))
        elif finding.kind == "caption_encoding":
            for image in finding.files:
                yield from self._written(image, lambda line: line)
        elif finding.kind == "nested_images":
            for folder in (path for path in finding.files if not path.is_symlink()):
                for stem, files in _by_stem(list_folder(folder).files).items():
                    yield from self._moved(files, stem, folder.parent)
        elif finding.kind == "borders":
            yield from (Cut(image, _without_borders(image)) for image in finding.files
                        if image not in self._taken and shown(image.stem) in read_record(image.parent)
                        and crop_of(image) is None and not obstacle(image))  # fmt: skip

    def _aside(self, files: Sequence[Path]) -> Iterator[Change]:
        for file in files:
            together = [path for path in [file, *_beside(file)] if path not in self._taken]
            if together:
                yield from self._moved(together, file.stem, self.dataset / SET_ASIDE)

    def _moved(self, files: Sequence[Path], stem: str, folder: Path) -> Iterator[Change]:
        """An image with its caption and mask; all get a number where something of their name is or will be there."""
        if folder not in self._stems:
            self._stems[folder] = {path.stem.casefold() for path in folder.iterdir()} if folder.is_dir() else set()
        named, number = stem, 2
        while named.casefold() in self._stems[folder]:
            named, number = f"{stem}-{number}", number + 1
        self._stems[folder].add(named.casefold())
        for file in files:
            self._taken.add(file)
            yield Move(file, folder / f"{named}{file.name[len(stem) :]}")

    def _first(self, images: Sequence[Path]) -> Iterator[Change]:
        for image in images:
            parsed = parse_name(image.parent.name)
            words = self.trigger or (parsed[1] if parsed else "")
            if words:
                yield from self._written(image, partial(_begun, words=words))

    def _written(self, image: Path, edit: Callable[[str], str]) -> Iterator[Change]:
        """Its caption after an edit of each line; once, whatever is found of it."""
        if image.parent not in self._named:
            self._named[image.parent] = list_folder(image.parent).by_name
        found = find_caption(image, self._named[image.parent], USUAL_ENDINGS)  # as the check finds it, IMG.TXT too
        if found is not None and (file := found[0]) not in self._taken:
            self._taken.add(file)
            yield Write(file, file.read_bytes(), "\n".join(map(edit, read_lines(file)[0])).encode())


def apply(journal: Journal, changes: Sequence[Change]) -> str:
    """Do them; names of folders change last, and are taken back by themselves.

    Returns:
        What was done, in few words; "" if nothing.

    Raises:
        FileError: as of :meth:`Journal.apply`.
    """
    renames = [change for change in changes if isinstance(change, Move) and change.old.is_dir()]
    groups: list[list[Change]] = [[change for change in changes if change not in renames], [*renames]]
    for group in groups:
        journal.apply(group, described(group))
    return "; ".join(described(group) for group in groups if group)


def described(changes: Sequence[Change]) -> str:
    """What changes do, in few words."""
    aside = [change for change in changes if isinstance(change, Move) and change.new.parent.name == SET_ASIDE]
    moved = [change for change in changes if isinstance(change, Move) and change not in aside]
    written = [change for change in changes if isinstance(change, Write)]
    cut = [change for change in changes if isinstance(change, Cut)]
    parts = []
    if aside:
        parts.append(f"{counted(len(aside), 'file')} set aside ({names([one.old.name for one in aside], 2)})")
    if moved:
        parts.append(f"{names([str(one) for one in moved], 2)}")
    if written:
        parts.append(f"{counted(len(written), 'caption')} rewritten")
    if cut:
        parts.append(f"{counted(len(cut), 'image')} cropped")
    return shown(", ".join(parts))


def _begun(line: str, words: str) -> str:
    moved = with_first(line, words)
    return moved if plain(moved).startswith(plain(words)) else with_prefix(line, words)


def _beside(file: Path) -> list[Path]:
    """Captions and masks of an image, unless it shares them with another one."""
    same = [path for path in file.parent.iterdir() if path.stem == file.stem and path != file]
    if any(path.suffix.lower() not in USUAL_ENDINGS for path in same):
        return []
    masks = [path for path in file.parent.glob(f"*{MASK}.*") if path.stem == file.stem + MASK]
    return sorted(same) + masks


def _without_borders(image: Path) -> Box:
    left, top, right, bottom = take_look(image, "", DatasetConfig().resolution[0] ** 2).borders
    return (left, top, 1 - right, 1 - bottom)


def _by_stem(files: Sequence[Path]) -> dict[str, list[Path]]:
    """Files that belong together by their names; a mask belongs to its image."""
    stems, found = {file.stem for file in files}, dict[str, list[Path]]()
    for file in files:
        of = file.stem.removesuffix(MASK)
        found.setdefault(of if of in stems else file.stem, []).append(file)
    return found


def _renamed(folder: Path) -> Path:
    return folder.with_name(suggested_name(folder.name))
