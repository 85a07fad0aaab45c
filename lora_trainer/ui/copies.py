"""From loose photos to a dataset: copies in a ``<repeats>_<trigger>`` folder; the originals are never touched."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_trainer.dataset.layout import Listing, is_foreign_image, list_folder, sorted_files, unopened
from lora_trainer.dataset.texts import USUAL_ENDINGS, find_caption, read_lines
from lora_trainer.errors import DatasetError, FileError, quoted
from lora_trainer.files import name_problem, replaced, write_text

MOST_REPEATS = 1000


@dataclass(frozen=True)
class Copies:
    """What was made of a person's photos."""

    folder: Path  # the dataset
    pictures: int
    described: int  # of these, how many came with a caption that says more than the trigger word
    left: tuple[Path, ...] = ()  # pictures that can't be opened here


def copy_photos(sources: Sequence[Path], datasets: Path, trigger: str, repeats: object) -> Copies:
    """Copy pictures and the captions beside them into ``datasets/TRIGGER/<repeats>_TRIGGER``.

    A picture without a caption gets one that is the trigger word alone.

    Args:
        sources: a folder, or files (pictures and caption files of the same name).
        datasets: gets one folder per dataset; a folder that exists is never added to.

    Raises:
        DatasetError, FileError: one sentence.
    """
    words, times = check_trigger(trigger), check_repeats(repeats)
    listing = _listing(sources)
    left = tuple(file for file in listing.files if is_foreign_image(file))
    if not listing.images:
        where = f" in {sources[0]}" if sources and sources[0].is_dir() else ""
        if left:
            raise DatasetError(f"No image{where} can be copied: {left[0].name} {unopened(left[0])}")
        raise DatasetError(f"There are no images{where} to copy; give a folder of photos or drop the files here.")
    folder = _free(datasets, words)
    target = folder / f"{times}_{words}"
    described = 0
    for stem, picture in _unique(listing.images):
        _copy(picture, target / f"{stem}{picture.suffix.lower()}")
        caption = find_caption(picture, listing.by_name, USUAL_ENDINGS)
        if caption is None:
            write_text(target / f"{stem}.txt", words)
        else:
            _copy(caption[0], target / f"{stem}.txt")
            described += _says_more(target / f"{stem}.txt", words)
    return Copies(folder, len(listing.images), described, left)


def _says_more(caption: Path, words: str) -> bool:
    return any(line.casefold() != words.casefold() for line in read_lines(caption)[0])


def check_trigger(trigger: str) -> str:
    """The trigger word as a folder name can have it.

    Raises:
        DatasetError: one sentence.
    """
    words = " ".join(trigger.split())
    if not words:
        raise DatasetError("The trigger word is missing: give one, such as zwx_anna.")
    problem = name_problem(words)
    if problem:
        raise DatasetError(
            f"The trigger word {quoted(words)} can't be used, because it names the folder and {problem}; use letters, "
            "digits, - and _."
        )
    return words


def check_repeats(repeats: object) -> int:
    """How often each picture is used in an epoch.

    Raises:
        DatasetError: one sentence.
    """
    text = str(repeats).strip().removesuffix(".0")
    if not text.isdigit() or not 1 <= int(text) <= MOST_REPEATS:
        raise DatasetError(f"Repeats can't be {quoted(text)}; give a whole number from 1 to {MOST_REPEATS}.")
    return int(text)


def _listing(sources: Sequence[Path]) -> Listing:
    """Everything in the folder, or the files themselves."""
    if len(sources) == 1 and sources[0].is_dir():
        return list_folder(sources[0])
    return sorted_files([source for source in sources if not source.is_dir()])


def _unique(pictures: Sequence[Path]) -> list[tuple[str, Path]]:
    """A name for each copy: its own, with a number where two pictures would share a caption."""
    used: set[str] = set()
    named: list[tuple[str, Path]] = []
    for picture in pictures:
        stem, number = picture.stem, 2
        while stem.lower() in used:
            stem, number = f"{picture.stem}-{number}", number + 1
        used.add(stem.lower())
        named.append((stem, picture))
    return named


def _free(datasets: Path, name: str) -> Path:
    folder, number = datasets / name, 2
    while folder.exists():
        folder, number = datasets / f"{name}-{number}", number + 1
    return folder


def _copy(source: Path, target: Path) -> None:
    try:
        with replaced(target) as temporary:
            shutil.copyfile(source, temporary)
    except FileNotFoundError as error:
        raise FileError(f"{source} isn't there any more; drop the files again.") from error
