"""Reading a dataset: folders, images, captions, regularisation images, and one line for all that isn't used."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lora_trainer.config import CaptionConfig, DatasetConfig
from lora_trainer.dataset.buckets import place
from lora_trainer.dataset.decode import probe
from lora_trainer.dataset.items import Dataset, Folder, ImageItem, Skipped
from lora_trainer.dataset.layout import Listing, find_folders, leftovers, names
from lora_trainer.dataset.texts import caption_endings, find_caption, read_lines
from lora_trainer.errors import DatasetError

OnImage = Callable[[int, int], None]  # images read so far, images in all


@dataclass(frozen=True)
class _Caption:
    lines: tuple[str, ...]
    source: Literal["file", "missing", "empty"]
    ending: str = ""  # of the file it came from
    known_encoding: bool = True


def scan(directory: Path, config: DatasetConfig, caption: CaptionConfig, progress: OnImage | None = None) -> Dataset:
    """Read a dataset in kohya's layout.

    Every image is decoded once, in threads, so that a damaged file is found now and not in the middle of a run; a file
    that hasn't changed isn't decoded again by a later scan in the same process. Pixels and hashes are left for later.

    Args:
        directory: holds ``<repeats>_<trigger>`` folders, or is one.

    Raises:
        DatasetError: nothing to train on, or a folder that can't be read; one sentence with the remedy.
    """
    directory, reg_directory = Path(directory).expanduser(), Path(config.reg_data_dir).expanduser()
    notices: list[str] = []
    found = find_folders(directory, False, notices)
    if config.reg_data_dir:
        found += find_folders(reg_directory, True, notices)
    read = _read_all(found, config, caption, progress)
    endings = caption_endings(caption.caption_extension)
    items: list[ImageItem] = []
    skipped: dict[bool, list[Skipped]] = {False: [], True: []}  # by is_reg
    for folder, listing in found:
        used = [(item, text) for item, text in read[folder] if isinstance(item, ImageItem)]
        items += [item for item, _ in used]
        skipped[folder.is_reg] += [item for item, _ in read[folder] if isinstance(item, Skipped)]
        skipped[folder.is_reg] += leftovers(folder.path, listing, endings, notices)
        notices += _caption_notices(folder, used, endings[0], caption.enable_wildcard)
        if not used:
            notices.append(f"{folder.name}: no image in it can be used.")
    train = [item for item in items if not item.is_reg]
    reg = [item for item in items if item.is_reg]
    if not train:
        raise DatasetError(_nothing(directory, skipped[False]))
    if config.reg_data_dir and not reg:
        raise DatasetError(_nothing(reg_directory, skipped[True]))
    reg = _match_regularisation(reg, sum(item.repeats for item in train), notices)
    folders = tuple(folder for folder, _ in found)
    return Dataset(directory, config, (*train, *reg), folders, (*skipped[False], *skipped[True]), tuple(notices))


def _read_all(
    found: list[tuple[Folder, Listing]], config: DatasetConfig, caption: CaptionConfig, progress: OnImage | None
) -> dict[Folder, list[tuple[ImageItem | Skipped, _Caption]]]:
    """Every image of every folder, in order; decoding runs in threads (Pillow frees the interpreter meanwhile)."""
    endings = caption_endings(caption.caption_extension)
    jobs = [(folder, listing, path) for folder, listing in found for path in listing.images]

    def read(job: tuple[Folder, Listing, Path]) -> tuple[ImageItem | Skipped, _Caption]:
        folder, listing, path = job
        text = _read_caption(path, folder, listing, endings)
        return _read_image(path, folder, text, config), text

    results: dict[Folder, list[tuple[ImageItem | Skipped, _Caption]]] = {folder: [] for folder, _ in found}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for done, ((folder, _, _), result) in enumerate(zip(jobs, pool.map(read, jobs), strict=True), 1):
            results[folder].append(result)
            if progress:
                progress(done, len(jobs))
    return results


def _read_image(path: Path, folder: Folder, text: _Caption, config: DatasetConfig) -> ImageItem | Skipped:
    try:
        status = path.stat()
    except OSError as error:
        return Skipped(path, f"can't be read ({error.strerror}); check its permissions.")
    try:
        size = probe(path, status.st_size, status.st_mtime_ns)
        placement = place(size, config)
    except DatasetError as error:
        return Skipped(path, str(error))
    return ImageItem(path, folder, folder.repeats, text.lines, text.source, size, placement)


def _read_caption(image: Path, folder: Folder, listing: Listing, endings: tuple[str, ...]) -> _Caption:
    """The image's caption; the folder's words where there is none or an empty one.

    Raises:
        DatasetError: if the file is there but can't be read.
    """
    instead = (folder.trigger,) if folder.trigger else ()
    found = find_caption(image, listing.files, endings)
    if found is None:
        return _Caption(instead, "missing")
    path, ending = found
    try:
        lines, known = read_lines(path)
    except OSError as error:
        raise DatasetError(f"The caption {path} can't be read ({error.strerror}); check its permissions.") from error
    return _Caption(lines, "file", ending, known) if lines else _Caption(instead, "empty", ending)


def _caption_notices(folder: Folder, used: list[tuple[ImageItem, _Caption]], ending: str, wildcard: bool) -> list[str]:
    """One line for each way in which captions of this folder aren't what the user may think."""
    instead = f'the folder\'s words "{folder.trigger}"' if folder.trigger else "an empty caption"
    lines = []
    for source, what in (("missing", "without a caption file"), ("empty", "with an empty caption file")):
        who = [item.path.name for item, text in used if text.source == source]
        if who and not (folder.is_reg and folder.trigger):  # usual for regularisation images
            lines.append(
                f"{folder.name}: {_images(len(who), what)} trained with {instead} ({names(who)}); "
                f"write {Path(who[0]).stem}{ending} to change that."
            )
    other = sorted({text.ending for _, text in used if text.ending and text.ending != ending})
    if other:
        lines.append(f"{folder.name}: captions were read from {' and '.join(other)} files where {ending} is missing.")
    several = [item.path.name for item, text in used if len(text.lines) > 1]
    if several and not wildcard:
        lines.append(
            f"{folder.name}: {len(several)} captions have several lines, only the first is used ({names(several)}); "
            "set enable_wildcard to use all lines in turn."
        )
    foreign = [item.path.name for item, text in used if not text.known_encoding]
    if foreign:
        lines.append(
            f"{folder.name}: captions of {names(foreign)} aren't UTF-8 and were read as Windows-1252; "
            "save them as UTF-8 if they look wrong."
        )
    return lines


def _images(number: int, what: str) -> str:
    return f"1 image {what} is" if number == 1 else f"{number} images {what} are"


def _match_regularisation(reg: list[ImageItem], wanted: int, notices: list[str]) -> list[ImageItem]:
    """kohya's rule: as many uses of regularisation images as of training images in an epoch.

    Images are taken in folder order with their folder's repeats until there are enough; if all together are too few,
    they get one more repeat each, in turn, until there are enough.
    """
    if not reg:
        return []
    taken: list[ImageItem] = []
    uses = 0
    for item in reg:
        if uses >= wanted:
            break
        taken.append(item)
        uses += item.repeats
    unused = len(reg) - len(taken)
    if unused:
        notices.append(
            f"{unused} of {len(reg)} regularisation images aren't used: {wanted} uses of training images per epoch "
            "need no more; raise the repeats of the training folders to use them."
        )
    if uses < wanted:
        more, rest = divmod(wanted - uses, len(taken))
        taken = [replace(item, repeats=item.repeats + more + (n < rest)) for n, item in enumerate(taken)]
        notices.append(
            f"The {len(taken)} regularisation images are repeated to {wanted} uses per epoch, as many as the training "
            "images have."
        )
    return taken


def _nothing(directory: Path, skipped: list[Skipped]) -> str:
    """The sentence for a folder in which no image can be used."""
    if not skipped:
        return f"{directory} holds no images; put them into its <repeats>_<trigger> folder."
    return f"No image in {directory} can be used ({len(skipped)} skipped): {skipped[0].path} {skipped[0].reason}"
