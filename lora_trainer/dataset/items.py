"""What a dataset is once it has been read: images, folders, what was skipped and what the user should know."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from lora_trainer.config import CaptionConfig, DatasetConfig
from lora_trainer.dataset.buckets import Placement, Size
from lora_trainer.dataset.findings import Finding
from lora_trainer.errors import DatasetError, shown


@dataclass(frozen=True)
class Folder:
    """A folder of images and how they are trained: ``<repeats>_<trigger>`` by its name, or a dataset file's subset."""

    path: Path
    repeats: int
    trigger: str  # the words after the number, or a subset's class_tokens; "" if there are none
    is_reg: bool = False
    config: DatasetConfig = field(default_factory=DatasetConfig)
    caption: CaptionConfig = field(default_factory=CaptionConfig)
    masks: Path | None = None  # the folder of its images' masks
    number: int = 0  # of its dataset in a dataset file, from 1; images of two datasets never share a batch
    given: frozenset[str] = field(default=frozenset(), compare=False)  # options that a dataset file sets for it

    @property
    def name(self) -> str:
        """The folder's name, as metadata and messages show it."""
        return shown(self.path.name)


@dataclass(frozen=True)
class ImageItem:
    """One image. ``repeats`` is how often it is used in an epoch; for regularisation images it is adjusted."""

    path: Path
    folder: Folder
    repeats: int
    captions: tuple[
        str, ...
    ]  # the non-empty lines of its caption file, or the folder's trigger; () if neither is there
    caption_source: Literal["file", "missing", "empty"]
    size: Size  # (width, height) after EXIF rotation
    placement: Placement
    mask: Path | None = None  # what of it counts, in a file of its own

    @property
    def is_reg(self) -> bool:
        """Whether it is a regularisation image."""
        return self.folder.is_reg

    @property
    def trigger(self) -> str:
        """The folder's words."""
        return self.folder.trigger

    @property
    def bucket(self) -> Size:
        """(width, height) that it is trained at."""
        return self.placement.bucket

    @cached_property
    def content_sha256(self) -> str:
        """Hash of the file's bytes, read at the first use; keys the latent cache.

        Raises:
            DatasetError: if the file can't be read any more.
        """
        digest = hashlib.sha256()
        try:
            with self.path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise DatasetError(
                f"{self.path} can't be read any more ({error.strerror}); start training again."
            ) from error
        return digest.hexdigest()


@dataclass(frozen=True)
class Skipped:
    """A file that isn't used, and why; ``str()`` is the line for the user."""

    path: Path
    reason: str  # the end of a sentence that begins with the path

    def __str__(self) -> str:
        return shown(f"Skipped {self.path}: it {self.reason}")


@dataclass(frozen=True)
class Dataset:
    """All that is trained on; ``items`` are the training images in folder order, then the regularisation images."""

    path: Path
    items: tuple[ImageItem, ...]
    folders: tuple[Folder, ...]  # training, then regularisation
    held_out: tuple[ImageItem, ...] = ()  # never trained on: see validation_split
    skipped: tuple[Skipped, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def notices(self) -> tuple[str, ...]:
        """The findings, a line each."""
        return tuple(map(str, self.findings))

    @property
    def resolution(self) -> Size:
        """The largest (width, height) that is trained at."""
        return max((folder.config.resolution for folder in self.folders), key=lambda size: size[0] * size[1])

    @property
    def subsets(self) -> tuple[Folder, ...]:
        """The subsets of a dataset file; none of a dataset that is a folder."""
        return tuple(folder for folder in self.folders if folder.number)

    @property
    def train_samples(self) -> int:
        """Training images times their repeats: the uses in one epoch, without regularisation."""
        return sum(item.repeats for item in self.items if not item.is_reg)

    @property
    def reg_samples(self) -> int:
        """Uses of regularisation images in one epoch."""
        return sum(item.repeats for item in self.items if item.is_reg)

    @property
    def pictures(self) -> tuple[ImageItem, ...]:
        """All images: those that are trained on, then those that are held out."""
        return (*self.items, *self.held_out)

    def of_one_size(self, most: int, held_out: bool = False) -> list[int]:
        """Indices in :attr:`pictures` of up to so many training images of the most frequent size, evenly spread over
        the dataset; or of held-out images."""
        first = len(self.items) if held_out else 0
        among = self.held_out if held_out else self.items
        own = [index for index, item in enumerate(among, first) if not item.is_reg]
        if not own:
            return []
        pictures = self.pictures
        size, _ = Counter(pictures[index].bucket for index in own).most_common(1)[0]
        same = [index for index in own if pictures[index].bucket == size]
        most = min(most, len(same))
        return [same[round(i * (len(same) - 1) / max(most - 1, 1))] for i in range(most)]
