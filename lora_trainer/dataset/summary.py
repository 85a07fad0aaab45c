"""What there is to say of a dataset: for the check, the page and the LoRA file's metadata."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lora_trainer.dataset.batches import bucket_samples
from lora_trainer.dataset.buckets import Size, aspect_error
from lora_trainer.dataset.captions import tag_frequency
from lora_trainer.dataset.checks.words import is_bare
from lora_trainer.dataset.items import Dataset, Folder, ImageItem
from lora_trainer.dataset.meaning import in_words
from lora_trainer.errors import counted, shown


@dataclass(frozen=True)
class FolderSummary:
    """Counts of one folder."""

    name: str
    trigger: str
    is_reg: bool
    repeats: int  # as its name says
    images: int  # used
    samples: int  # uses in one epoch; for regularisation after kohya's adjustment
    captions_missing: int
    captions_empty: int
    captions_bare: int  # files that hold the folder's words and nothing else
    how: str  # what a dataset file says of it, in words; "" for other folders
    tags: dict[str, int]  # how many images have each tag


@dataclass(frozen=True)
class DatasetSummary:
    """Counts of a whole dataset; plain values, so that :func:`dataclasses.asdict` is ready for JSON."""

    path: str
    images: int
    samples: int  # uses of training images in one epoch
    reg_images: int
    reg_samples: int
    folders: tuple[FolderSummary, ...]
    buckets: tuple[tuple[Size, int], ...]  # (width, height) and uses in one epoch
    mean_aspect_error: float  # between image and bucket
    captions_missing: int
    captions_empty: int
    captions_bare: int
    skipped: tuple[str, ...]  # a line each
    notices: tuple[str, ...]


def summary(dataset: Dataset) -> DatasetSummary:
    """Count everything."""
    folders = tuple(_folder(dataset, folder) for folder in dataset.folders)
    captions: dict[str, set[Path]] = {kind: set() for kind in ("missing", "empty", "bare", "file")}
    for item in dataset.items:
        if not item.is_reg:  # an image may be in several datasets
            captions["bare" if _says_nothing_else(item) else item.caption_source].add(item.path)
    errors = [aspect_error(item.size, item.bucket) for item in dataset.items]
    return DatasetSummary(
        path=shown(dataset.path),
        images=len({item.path for item in dataset.items if not item.is_reg}),
        samples=dataset.train_samples,
        reg_images=sum(folder.images for folder in folders if folder.is_reg),
        reg_samples=dataset.reg_samples,
        folders=folders,
        buckets=tuple(bucket_samples(dataset).items()),
        mean_aspect_error=sum(errors) / len(errors) if errors else 0.0,
        captions_missing=len(captions["missing"]),
        captions_empty=len(captions["empty"]),
        captions_bare=len(captions["bare"]),
        skipped=tuple(map(str, dataset.skipped)),
        notices=dataset.notices,
    )


def to_json(facts: DatasetSummary) -> dict[str, Any]:
    """The summary as plain JSON values."""
    return dict(json.loads(json.dumps(asdict(facts))))


def describe(facts: DatasetSummary) -> list[str]:
    """The counts as lines for a person."""
    lines = [f"{facts.path}: {counted(facts.images, 'image')}, {counted(facts.samples, 'sample')} per epoch"]
    if facts.reg_images:
        images = counted(facts.reg_images, "regularisation image")
        lines.append(f"{images}, {counted(facts.reg_samples, 'sample')} per epoch")
    for folder in facts.folders:
        kind, words = ("regularisation, ", "class") if folder.is_reg else ("", "trigger word")
        images = counted(folder.images, "image")
        how = f", {folder.how}" if folder.how else ""
        called = f', {words} "{folder.trigger}"' if folder.trigger else ""
        lines.append(f"  {folder.name}: {kind}{images} x {folder.repeats}{called}{how}")
    lines += [f"  bucket {size[0]}x{size[1]}: {counted(uses, 'sample')}" for size, uses in facts.buckets]
    if facts.captions_missing or facts.captions_empty:
        images = counted(facts.captions_missing, "image")
        lines.append(f"{images} without a caption file, {facts.captions_empty} with an empty one")
    if facts.skipped:
        lines.append(f"{counted(len(facts.skipped), 'file')} skipped")
    return lines


def _says_nothing_else(item: ImageItem) -> bool:
    """Whether an image has a caption file with its folder's words alone."""
    return item.caption_source == "file" and is_bare(item)


def _folder(dataset: Dataset, folder: Folder) -> FolderSummary:
    items = [item for item in dataset.items if item.folder == folder]
    return FolderSummary(
        name=folder.name,
        trigger=folder.trigger,
        is_reg=folder.is_reg,
        repeats=folder.repeats,
        images=len(items),
        samples=sum(item.repeats for item in items),
        captions_missing=sum(item.caption_source == "missing" for item in items),
        captions_empty=sum(item.caption_source == "empty" for item in items),
        captions_bare=sum(map(_says_nothing_else, items)),
        how=in_words(folder) if folder.number or folder.config.extra_resolutions else "",
        tags=tag_frequency(item.captions[0] for item in items if item.captions),
    )
