"""Reading a dataset: folders, images, captions, regularisation images, and one line for all that isn't used."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import ceil
from pathlib import Path

from lora_trainer.config import CaptionConfig, DatasetConfig
from lora_trainer.dataset.buckets import Size, place
from lora_trainer.dataset.decode import probe
from lora_trainer.dataset.findings import Finding
from lora_trainer.dataset.items import Dataset, Folder, ImageItem, Skipped
from lora_trainer.dataset.layout import Listing, find_folders, leftovers
from lora_trainer.dataset.remarks import caption_remarks
from lora_trainer.dataset.texts import Caption, caption_endings, find_caption, read_lines
from lora_trainer.errors import DatasetError, counted

FEWEST_TO_SPLIT = 12  # images

OnImage = Callable[[int, int], None]  # images read so far, images in all
SizeOf = Callable[[Path, int, int], Size]  # of a file that is whole; its path, bytes and time of change in ns


def scan(
    directory: Path,
    config: DatasetConfig,
    caption: CaptionConfig,
    progress: OnImage | None = None,
    size_of: SizeOf = probe,
) -> Dataset:
    """Read a dataset in kohya's layout.

    Every image is decoded once, in threads, so that a damaged file is found now and not in the middle of a run; a file
    that hasn't changed isn't decoded again by a later scan in the same process. Pixels and hashes are left for later.

    Args:
        directory: holds ``<repeats>_<trigger>`` folders, or is one.
        size_of: decodes an image, as :func:`probe` does.

    Raises:
        DatasetError: nothing to train on, or a folder that can't be read; one sentence with the remedy.
    """
    directory, reg_directory = Path(directory).expanduser(), Path(config.reg_data_dir).expanduser()
    findings: list[Finding] = []
    found = find_folders(directory, False, findings)
    if config.reg_data_dir:
        found += find_folders(reg_directory, True, findings)
    read = _read_all(found, config, caption, progress, size_of)
    endings = caption_endings(caption.caption_extension)
    items: list[ImageItem] = []
    skipped: dict[bool, list[Skipped]] = {False: [], True: []}  # by is_reg
    for folder, listing in found:
        used = [(item, text) for item, text in read[folder] if isinstance(item, ImageItem)]
        items += [item for item, _ in used]
        skipped[folder.is_reg] += [item for item, _ in read[folder] if isinstance(item, Skipped)]
        skipped[folder.is_reg] += leftovers(folder.path, listing, endings, findings)
        findings += caption_remarks(folder, used, endings[0], caption)
        if not used:
            findings.append(Finding("nothing_usable", "warning", f"{folder.name}: none of its images can be used"))
    train = [item for item in items if not item.is_reg]
    reg = [item for item in items if item.is_reg]
    if not train:
        raise DatasetError(_nothing(directory, skipped[False]))
    if config.reg_data_dir and not reg:
        raise DatasetError(_nothing(reg_directory, skipped[True]))
    train, held_out = _hold_out(train, config, findings)
    reg = _match_regularisation(reg, sum(item.repeats for item in train), findings)
    folders = tuple(folder for folder, _ in found)
    unused = (*skipped[False], *skipped[True])
    return Dataset(directory, config, (*train, *reg), folders, tuple(held_out), unused, tuple(findings))


def _read_all(
    found: list[tuple[Folder, Listing]],
    config: DatasetConfig,
    caption: CaptionConfig,
    progress: OnImage | None,
    size_of: SizeOf,
) -> dict[Folder, list[tuple[ImageItem | Skipped, Caption]]]:
    """Every image of every folder, in order; decoding runs in threads (Pillow frees the interpreter meanwhile)."""
    endings = caption_endings(caption.caption_extension)
    jobs = [(folder, listing, path) for folder, listing in found for path in listing.images]

    def read(job: tuple[Folder, Listing, Path]) -> tuple[ImageItem | Skipped, Caption]:
        folder, listing, path = job
        text = _read_caption(path, folder, listing, endings)
        return _read_image(path, folder, text, config, size_of), text

    results: dict[Folder, list[tuple[ImageItem | Skipped, Caption]]] = {folder: [] for folder, _ in found}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for done, ((folder, _, _), result) in enumerate(zip(jobs, pool.map(read, jobs), strict=True), 1):
            results[folder].append(result)
            if progress:
                progress(done, len(jobs))
    return results


def _read_image(
    path: Path, folder: Folder, text: Caption, config: DatasetConfig, size_of: SizeOf
) -> ImageItem | Skipped:
    try:
        status = path.stat()
    except OSError as error:
        return Skipped(path, f"can't be read ({error.strerror}); check its permissions.")
    try:
        size = size_of(path, status.st_size, status.st_mtime_ns)
        placement = place(size, config)
    except DatasetError as error:
        return Skipped(path, str(error))
    return ImageItem(path, folder, folder.repeats, text.lines, text.source, size, placement)


def _read_caption(image: Path, folder: Folder, listing: Listing, endings: tuple[str, ...]) -> Caption:
    """The image's caption; the folder's words where there is none or an empty one.

    Raises:
        DatasetError: if the file is there but can't be read.
    """
    instead = (folder.trigger,) if folder.trigger else ()
    found = find_caption(image, listing.by_name, endings)
    if found is None:
        return Caption(instead, "missing")
    path, ending = found
    try:
        lines, known = read_lines(path)
    except OSError as error:
        raise DatasetError(f"The caption {path} can't be read ({error.strerror}); check its permissions.") from error
    return Caption(lines, "file", ending, known) if lines else Caption(instead, "empty", ending)


def _hold_out(
    train: list[ImageItem], config: DatasetConfig, findings: list[Finding]
) -> tuple[list[ImageItem], list[ImageItem]]:
    """The images to train on, and those that are held out: of each folder the share that sd-scripts takes, and with the
    same seed the same images."""
    if not config.validation_split:
        return train, []
    if len(train) < FEWEST_TO_SPLIT:
        few = f"with fewer than {FEWEST_TO_SPLIT}, each one is needed for training"
        findings.append(Finding("held_out", "info", f"None of the {counted(len(train), 'image')} is held out: {few}"))
        return train, []
    held: set[Path] = set()
    for folder in dict.fromkeys(item.folder for item in train):
        paths = sorted(str(item.path) for item in train if item.folder == folder)
        random.Random(config.validation_seed).shuffle(paths)
        held.update(map(Path, paths[ceil(len(paths) * (1 - config.validation_split)) :]))
    told = f"{counted(len(held), 'image')} of {len(train)} held out: not trained on, only measured"
    findings.append(Finding("held_out", "info", told))
    return [item for item in train if item.path not in held], [item for item in train if item.path in held]


def _match_regularisation(reg: list[ImageItem], wanted: int, findings: list[Finding]) -> list[ImageItem]:
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
        told = (
            f"{unused} of {len(reg)} regularisation images aren't used, because an epoch has only {wanted} samples of "
            "training images"
        )
        remedy = "raise the repeats of the training folders to use them"
        findings.append(Finding("regularisation", "info", told, remedy))
    if uses < wanted:
        more, rest = divmod(wanted - uses, len(taken))
        taken = [replace(item, repeats=item.repeats + more + (n < rest)) for n, item in enumerate(taken)]
        told = f"The {len(taken)} regularisation images are repeated to {wanted} samples per epoch"
        findings.append(Finding("regularisation", "info", f"{told}, to match the training images"))
    return taken


def _nothing(directory: Path, skipped: list[Skipped]) -> str:
    """The sentence for a folder in which no image can be used."""
    if not skipped:
        return f"{directory} holds no images; put them into its <repeats>_<trigger> folder."
    first = skipped[0]
    return f"No image in {directory} can be used ({len(skipped)} skipped). The first: {first.path} {first.reason}"
