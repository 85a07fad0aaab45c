"""From loose photos to a dataset: copies in a ``<repeats>_<trigger>`` folder; the originals are never touched."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from lora_trainer.dataset.decode import image_endings
from lora_trainer.dataset.layout import list_folder
from lora_trainer.errors import DatasetError, FileError
from lora_trainer.files import replaced, write_text

FORBIDDEN = set('<>:"/\\|?*')
CAPTION_ENDINGS = (".txt", ".caption")
MOST_REPEATS = 1000


def copy_photos(sources: Sequence[Path], datasets: Path, trigger: str, repeats: object) -> tuple[Path, int, int]:
    """Copy pictures and the captions beside them into ``datasets/TRIGGER/<repeats>_TRIGGER``.

    A picture without a caption gets one that is the trigger word alone.

    Args:
        sources: a folder, or files (pictures and caption files of the same name).
        datasets: gets one folder per dataset; a folder that exists is never added to.

    Returns:
        The dataset's folder, the number of pictures, and how many of them had a caption.

    Raises:
        DatasetError, FileError: one sentence.
    """
    words, times = check_trigger(trigger), check_repeats(repeats)
    pictures, captions = _sort(_files(sources))
    if not pictures:
        where = f" in {sources[0]}" if sources and sources[0].is_dir() else ""
        raise DatasetError(f"There are no pictures{where} to copy; give a folder of photos or drop the files here.")
    folder = _free(datasets, words)
    target = folder / f"{times}_{words}"
    described = 0
    for stem, picture in _unique(pictures):
        _copy(picture, target / f"{stem}{picture.suffix.lower()}")
        caption = captions.get(picture.stem.lower())
        described += caption is not None
        if caption is None:
            write_text(target / f"{stem}.txt", words)
        else:
            _copy(caption, target / f"{stem}.txt")
    return folder, len(pictures), described


def check_trigger(trigger: str) -> str:
    """The trigger word as a folder name can have it.

    Raises:
        DatasetError: one sentence.
    """
    words = " ".join(trigger.split())
    if not words:
        raise DatasetError("The trigger word is missing: give one in step 2, such as zwx_anna.")
    bad = sorted({char for char in words if char in FORBIDDEN or ord(char) < 32})
    if bad or words.startswith(".") or words.endswith(".") or len(words) > 80:
        reason = f"{' '.join(bad)} can't be part of a folder's name" if bad else "a folder can't have that name"
        raise DatasetError(f"The trigger word {words!r} can't be used, because {reason}; use letters, digits, - and _.")
    return words


def check_repeats(repeats: object) -> int:
    """How often each picture is used in an epoch.

    Raises:
        DatasetError: one sentence.
    """
    text = str(repeats).strip().removesuffix(".0")
    if not text.isdigit() or not 1 <= int(text) <= MOST_REPEATS:
        raise DatasetError(f"Repeats can't be {text!r}; give a whole number from 1 to {MOST_REPEATS}.")
    return int(text)


def _files(sources: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for source in sources:
        files += list_folder(source).files.values() if source.is_dir() else [source]
    return files


def _sort(files: Sequence[Path]) -> tuple[list[Path], dict[str, Path]]:
    """Pictures, and captions by lower-case stem; anything else is left where it is."""
    endings = image_endings()
    pictures = [file for file in files if file.suffix.lower() in endings]
    captions = {file.stem.lower(): file for file in files if file.suffix.lower() in CAPTION_ENDINGS}
    return pictures, captions


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
        raise FileError(f"{source} isn't there any more; drop the files once more.") from error
