"""Reading a dataset: folders, images, captions, regularisation images, and one line for all that isn't used."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import TypeVar

from lora_trainer.config import CaptionConfig, DatasetConfig
from lora_trainer.dataset.buckets import Size, place
from lora_trainer.dataset.dataset_file import is_dataset_file, read_dataset_file
from lora_trainer.dataset.decode import probe
from lora_trainer.dataset.findings import Finding, names
from lora_trainer.dataset.items import Dataset, Folder, ImageItem, Skipped
from lora_trainer.dataset.layout import Listing, find_folders, leftovers, list_folder
from lora_trainer.dataset.masks import check_mask, find_masks, mask_remarks
from lora_trainer.dataset.remarks import caption_remarks
from lora_trainer.dataset.texts import Caption, caption_endings, find_caption, folded, read_lines
from lora_trainer.errors import DatasetError, counted

J = TypeVar("J")
R = TypeVar("R")
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
        directory: holds ``<repeats>_<trigger>`` folders, or is one; or a dataset file.
        config, caption: of the run; a dataset file has its own for each subset, and takes the rest from these.
        size_of: decodes an image, as :func:`probe` does.

    Raises:
        DatasetError: nothing to train on, or a folder that can't be read; one sentence with the remedy.
    """
    directory = Path(directory).expanduser()
    findings: list[Finding] = []
    found = _find(directory, config, caption, findings)
    read = _read_all(found, progress, size_of)
    items: list[ImageItem] = []
    skipped: dict[bool, list[Skipped]] = {False: [], True: []}  # by is_reg
    for folder, listing in found:
        endings = caption_endings(folder.caption.caption_extension)
        used = [(item, text) for item, text in read[folder] if isinstance(item, ImageItem)]
        items += [item for item, _ in used]
        skipped[folder.is_reg] += [item for item, _ in read[folder] if isinstance(item, Skipped)]
        skipped[folder.is_reg] += leftovers(folder.path, listing, endings, findings)
        findings += caption_remarks(folder, used, endings[0], folder.caption)
        findings += mask_remarks(folder, [item for item, _ in used], listing)
        if not used:
            findings.append(Finding("nothing_usable", "warning", f"{folder.name}: none of its images can be used"))
    train = [item for item in items if not item.is_reg]
    reg = [item for item in items if item.is_reg]
    if not train:
        raise DatasetError(_nothing(directory, skipped[False]))
    folders = tuple(folder for folder, _ in found)
    if any(folder.is_reg for folder in folders) and not reg:
        place = directory if is_dataset_file(directory) else Path(config.reg_data_dir or directory).expanduser()
        raise DatasetError(_nothing(place, skipped[True], is_reg=True))
    train, held_out = _hold_out(train, findings)
    reg = [item for of in dict.fromkeys(map(_dataset_and_size, folders))
           for item in _match_regularisation(of, reg, train, findings)]  # fmt: skip
    unused: dict[Path, Skipped] = {}  # once, at however many sizes the folder is trained
    trained = {item.path for item in items if not item.folder.number}
    for one in (*skipped[False], *skipped[True]):
        if one.path not in trained:
            unused.setdefault(one.path, one)
    findings += _left_out_at(read, trained)
    once = dict.fromkeys(findings)
    return Dataset(directory, (*train, *reg), folders, tuple(held_out), tuple(unused.values()), tuple(once))


def _left_out_at(
    read: dict[Folder, list[tuple[ImageItem | Skipped, Caption]]], trained: set[Path]
) -> Iterator[Finding]:
    """Images that are trained, but not at every size."""
    for folder, seen in read.items():
        files = tuple(one.path for one, _ in seen if isinstance(one, Skipped) and one.path in trained)
        if files:
            width, height = folder.config.resolution
            few = names([path.name for path in files])
            told = f"{folder.name}: {counted(len(files), 'image')} {'is' if len(files) == 1 else 'are'} not trained at"
            narrow = f"{told} {width}x{height} px, as no bucket there is so narrow ({few})"
            yield Finding("extra_resolutions", "info", narrow, "give a larger size, or crop them", files)


def training_folders(dataset: Path) -> list[tuple[str, Folder, Listing]]:
    """The folders with training images of a dataset, a folder or a file, each once; with a name that no other has.

    Raises:
        DatasetError: if there is none.
    """
    found = _find(dataset, DatasetConfig(), CaptionConfig(), [])
    once = {folder.path: (folder, listing) for folder, listing in found if not folder.is_reg}
    names = Counter(folder.path.name for folder, _ in once.values())
    return [
        (folder.path.name if names[folder.path.name] == 1 else f"{folder.path.name} ({number})", folder, listing)
        for number, (folder, listing) in enumerate(once.values(), 1)
    ]


def _find(
    directory: Path, config: DatasetConfig, caption: CaptionConfig, findings: list[Finding]
) -> list[tuple[Folder, Listing]]:
    """The folders of a dataset, and what lies in them."""
    if not is_dataset_file(directory):
        found = find_folders(directory, False, findings, config, caption)
        if config.reg_data_dir:
            found += find_folders(Path(config.reg_data_dir).expanduser(), True, findings, config, caption)
        return [(replace(folder, config=replace(config, resolution=size)), listing) for is_reg in (False, True)
                for size in config.resolutions for folder, listing in found if folder.is_reg == is_reg]  # fmt: skip
    folders = read_dataset_file(directory, config, caption)
    once = {(folder.number, folder.path): folder for folder in reversed(folders)}  # the first of each stays
    if len(once) < len(folders):
        more = f"{counted(len(folders) - len(once), 'subset')} with the same image_dir as another one of its dataset"
        findings.append(Finding("subset_twice", "warning", f"{more} ignored", "raise the other one's num_repeats"))
    if config.reg_data_dir:
        own = "reg_data_dir isn't used: a dataset file names its own regularisation images, with is_reg"
        findings.append(Finding("regularisation", "warning", own))
    if config.extra_resolutions:
        own = "extra_resolutions isn't used: a dataset file gives each of its datasets a resolution of its own"
        findings.append(Finding("extra_resolutions", "warning", own))
    return [(folder, list_folder(folder.path)) for folder in reversed(once.values())]


def _read_all(
    found: list[tuple[Folder, Listing]],
    progress: OnImage | None,
    size_of: SizeOf,
) -> dict[Folder, list[tuple[ImageItem | Skipped, Caption]]]:
    """Every image of every folder, in order; decoding runs in threads (Pillow frees the interpreter meanwhile)."""
    masks = {folder: find_masks(folder, listing) for folder, listing in found}
    jobs = [(folder, listing, path) for folder, listing in found for path in listing.images]

    def read(job: tuple[Folder, Listing, Path]) -> tuple[ImageItem | Skipped, Caption]:
        folder, listing, path = job
        try:
            text = _read_caption(path, folder, listing, caption_endings(folder.caption.caption_extension))
        except DatasetError as error:  # trained without its caption, it would teach something else
            return Skipped(path, str(error)), Caption((), "missing")
        return _read_image(path, folder, text, masks[folder].get(folded(path.stem)), size_of), text

    results: dict[Folder, list[tuple[ImageItem | Skipped, Caption]]] = {folder: [] for folder, _ in found}
    for done, ((folder, _, _), result) in enumerate(zip(jobs, side_by_side(read, jobs), strict=True), 1):
        results[folder].append(result)
        if progress:
            progress(done, len(jobs))
    return results


def side_by_side(work: Callable[[J], R], jobs: Sequence[J]) -> Iterator[R]:
    """The results of jobs in their order, done in threads; who asks for no more of them ends it at once."""
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        yield from pool.map(work, jobs)
    finally:
        pool.shutdown(cancel_futures=True)  # after an exception, what hasn't begun doesn't begin


def _read_image(path: Path, folder: Folder, text: Caption, mask: Path | None, size_of: SizeOf) -> ImageItem | Skipped:
    try:
        status = path.stat()
    except OSError as error:
        return Skipped(path, f"can't be read ({error.strerror}); check its permissions.")
    try:
        size = size_of(path, status.st_size, status.st_mtime_ns)
        placement = place(size, folder.config)
        if mask is not None:
            check_mask(mask, size)
    except DatasetError as error:
        return Skipped(path, str(error))
    return ImageItem(path, folder, folder.repeats, text.lines, text.source, size, placement, mask)


def _read_caption(image: Path, folder: Folder, listing: Listing, endings: tuple[str, ...]) -> Caption:
    """The image's caption; the folder's words where there is none or an empty one.

    Raises:
        DatasetError: if the file is there but can't be read; the end of a sentence that begins with the image's name.
    """
    instead = (folder.trigger,) if folder.trigger else ()
    found = find_caption(image, listing.by_name, endings)
    if found is None:
        return Caption(instead, "missing")
    path, ending = found
    try:
        lines, known = read_lines(path)
    except OSError as error:
        why = f"has a caption, {path.name}, that can't be read ({error.strerror}); check its permissions."
        raise DatasetError(why) from error
    return Caption(lines, "file", ending, known) if lines else Caption(instead, "empty", ending)


def _hold_out(train: list[ImageItem], findings: list[Finding]) -> tuple[list[ImageItem], list[ImageItem]]:
    """The images to train on, and those that are held out: of each folder the share that sd-scripts takes, and with the
    same seed the same images."""
    split = [folder for folder in dict.fromkeys(item.folder for item in train) if folder.config.validation_split]
    if not split:
        return train, []
    images = len({item.path for item in train})
    if images < FEWEST_TO_SPLIT:
        few = f"with fewer than {FEWEST_TO_SPLIT}, each one is needed for training"
        findings.append(Finding("held_out", "info", f"None of the {counted(images, 'image')} is held out: {few}"))
        return train, []
    held: set[Path] = set()
    for folder in split:
        paths = sorted(str(item.path) for item in train if item.folder == folder)
        random.Random(folder.config.validation_seed).shuffle(paths)
        held.update(map(Path, paths[ceil(len(paths) * (1 - folder.config.validation_split)) :]))
    told = f"{counted(len(held), 'image')} of {images} held out: not trained on, only measured"
    findings.append(Finding("held_out", "info", told))
    return [item for item in train if item.path not in held], [item for item in train if item.path in held]


def _dataset_and_size(folder: Folder) -> tuple[int, Size]:
    return folder.number, folder.config.resolution


def _match_regularisation(
    of: tuple[int, Size], reg: list[ImageItem], train: list[ImageItem], findings: list[Finding]
) -> list[ImageItem]:
    """kohya's rule: as many uses of regularisation images as of training images in an epoch; dataset by dataset, size
    by size.

    Images are taken in folder order with their folder's repeats until there are enough; if all together are too few,
    they get one more repeat each, in turn, until there are enough.
    """
    reg = [item for item in reg if _dataset_and_size(item.folder) == of]
    wanted = sum(item.repeats for item in train if _dataset_and_size(item.folder) == of)
    if not reg or not wanted:
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


def _nothing(directory: Path, skipped: list[Skipped], is_reg: bool = False) -> str:
    """The sentence for a folder or a dataset file of which no image can be used."""
    if not skipped and is_dataset_file(directory) and is_reg:
        return f"{directory} has no regularisation images; put some into the folder with is_reg, or take it out."
    if not skipped and is_dataset_file(directory):
        return f"{directory} names no images to train on; give a subset the folder of yours, without is_reg."
    if not skipped:
        return f"{directory} holds no images; put them into its <repeats>_<trigger> folder."
    first = skipped[0]
    return f"No image in {directory} can be used ({len(skipped)} skipped). The first: {first.path} {first.reason}"
