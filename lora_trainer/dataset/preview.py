"""An image as training sees it: its bucket, what is cut off, and the first uses of it, by the code that trains."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from lora_trainer.config import RunConfig
from lora_trainer.dataset.batches import Sample
from lora_trainer.dataset.buckets import crop_box
from lora_trainer.dataset.captions import is_varied
from lora_trainer.dataset.items import Dataset, ImageItem
from lora_trainer.dataset.uses import Length, Use, use_pixels, use_text, uses_of
from lora_trainer.errors import FileError, quoted, shown
from lora_trainer.tokens import beyond, tokenise

if TYPE_CHECKING:
    from lora_trainer.dataset.images import LoadedImage

MOST_USES = 16
SHOWN_SEED = 1  # where the run picks its own
QUALITY = 90  # of a picture on the page


@dataclass(frozen=True)
class SeenUse:
    """One use of an image."""

    epoch: int
    step: int  # optimiser steps done before
    flip: bool
    caption: str
    tokens: int
    cut: str  # what of the caption the text encoder doesn't see
    picture: Image.Image  # RGB, as large as the bucket
    mask: Image.Image | None  # L: what is black doesn't count

    def to_dict(self) -> dict[str, Any]:
        """For JSON; pictures as data addresses."""
        return {
            "epoch": self.epoch, "step": self.step, "flip": self.flip, "caption": shown(self.caption),
            "tokens": self.tokens, "cut": shown(self.cut), "picture": _data(self.picture),
            "mask": None if self.mask is None else _data(self.mask),
        }  # fmt: skip


@dataclass(frozen=True)
class Preview:
    """An image, and the first uses of it."""

    item: ImageItem
    crop: tuple[float, float, float, float]  # left, top, right, bottom of the centre crop as shares of the sides
    limit: int  # tokens that the text encoder sees
    held_out: bool
    datasets: int  # of a dataset file that have this image, each with settings of its own; this is the first of them
    varied: tuple[str, ...]  # what differs from use to use
    own_seed: bool  # whether the run will pick its own seed, so that its draws are others
    uses: tuple[SeenUse, ...]

    @property
    def id(self) -> str:
        """<folder>/<name>"""
        return image_id(self.item)

    def lines(self) -> list[str]:
        """What happens to the image, for a person."""
        size, (resized, bucket) = self.item.size, self.item.placement
        lines = [f"{_px(size)} px, trained at {_px(bucket)} px (its bucket)."]
        if resized != size:
            lines.append(f"It is made {'larger' if resized[0] > size[0] else 'smaller'}: {_px(resized)} px.")
        sides = [f"{spare} px of its {side}" for spare, side in zip(
            (resized[0] - bucket[0], resized[1] - bucket[1]), ("width", "height"), strict=True) if spare]  # fmt: skip
        if sides:
            lines.append(f"Then {' and '.join(sides)} are cut off.")
        if self.datasets > 1:
            lines.append(f"It is trained at {self.datasets} sizes or in so many datasets; this is the first of them.")
        if self.held_out:
            lines.append("It is held out: it isn't trained on, only measured.")
        elif not self.varied:
            lines.append("Every use of it is the same.")
        else:
            lines.append(f"From use to use, at random: {', '.join(self.varied)}.")
            if self.own_seed:
                lines.append("These draws are examples: with seed 0, a run picks a seed of its own.")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        size, (resized, bucket) = self.item.size, self.item.placement
        return {
            "id": self.id, "size": list(size), "resized": list(resized), "bucket": list(bucket),
            "crop": list(self.crop), "limit": self.limit, "held_out": self.held_out, "varied": list(self.varied),
            "lines": self.lines(), "uses": [use.to_dict() for use in self.uses],
        }  # fmt: skip


def preview(dataset: Dataset, id: str, config: RunConfig, number: int) -> Preview:
    """How one image of the dataset is trained.

    Args:
        id: <folder>/<name>, or the name where only one image has it.
        number: of uses that are shown, where they differ.

    Raises:
        FileError: there is no such image.
        DatasetError: it can't be read any more.
    """
    same = _indices(dataset, id)
    index, seed = same[0], config.optimizer.seed or SHOWN_SEED
    item = dataset.pictures[index]
    held_out = index >= len(dataset.items)
    varied = () if held_out else _varied(item)
    length = Length.of(dataset, config)
    most = min(number, MOST_USES) if varied else 1
    uses = list(islice(uses_of(dataset, index, length, seed), most)) or [Use(Sample(index, 0, 0, False), 1, 0)]
    (width, height), (left, top, right, bottom) = item.placement.resized, crop_box(*item.placement)
    limit = item.folder.caption.max_token_length
    seen = tuple(_seen(dataset, use, limit, seed, length.steps) for use in uses)
    return Preview(
        item, (left / width, top / height, right / width, bottom / height), limit, held_out,
        len(same), varied, not config.optimizer.seed, seen,
    )  # fmt: skip


def image_id(item: ImageItem) -> str:
    """How an image is called: <folder>/<name>."""
    return shown(f"{item.folder.path.name}/{item.path.name}")


def sheet(seen: Preview) -> Image.Image:
    """The uses side by side; each one's mask, where there is one, below it."""
    columns = [[use.picture, *([use.mask.convert("RGB")] if use.mask is not None else [])] for use in seen.uses]
    width, height = seen.item.bucket
    page = Image.new("RGB", (width * len(columns), height * max(map(len, columns))), "white")
    for x, column in enumerate(columns):
        for y, picture in enumerate(column):
            page.paste(picture, (x * width, y * height))
    return page


def _indices(dataset: Dataset, id: str) -> list[int]:
    """Where an image is in ``Dataset.pictures``; more than once where several datasets of a file have it."""
    names = {n: (image_id(item), shown(item.path.name)) for n, item in enumerate(dataset.pictures)}
    found = [n for n, (whole, _) in names.items() if whole == id] or [n for n, (_, name) in names.items() if name == id]
    if len({dataset.pictures[n].path for n in found}) == 1:
        return found
    if found:
        raise FileError(f"Several folders have an image {quoted(id)}; give <folder>/<name>.")
    for one in dataset.skipped:
        if id in (shown(one.path.name), shown(f"{one.path.parent.name}/{one.path.name}")):
            raise FileError(str(one))
    raise FileError(f"There is no image {quoted(id)} in {dataset.path}; give <folder>/<name>.")


def _varied(item: ImageItem) -> tuple[str, ...]:
    data = item.folder.config
    random = {
        "mirrored or not": data.flip_aug, "the place of the crop": data.random_crop, "colours": data.color_aug,
        "the caption": is_varied(item.folder.caption),
    }  # fmt: skip
    return tuple(what for what, on in random.items() if on)


def _seen(dataset: Dataset, use: Use, limit: int, seed: int, steps: int) -> SeenUse:
    sample = use.sample
    loaded = use_pixels(dataset, sample.item, sample.flip, sample.uid, seed)
    text = use_text(dataset, use, seed, steps)
    cut = beyond(text, limit)
    return SeenUse(use.epoch, use.step, sample.flip, text, len(tokenise(text)), cut, *_pictures(loaded))


def _pictures(loaded: LoadedImage) -> tuple[Image.Image, Image.Image | None]:
    """The tensors as pictures again; no value is changed."""
    pixels = np.rint((loaded.pixels.numpy().transpose(1, 2, 0) + 1) * np.float32(127.5)).astype(np.uint8)
    mask = None
    if loaded.mask is not None:
        mask = Image.fromarray(np.rint(loaded.mask.numpy()[0] * np.float32(255)).astype(np.uint8), "L")
    return Image.fromarray(pixels), mask


def _data(picture: Image.Image) -> str:
    memory = io.BytesIO()
    kind = "PNG" if picture.mode == "L" else "JPEG"
    picture.save(memory, kind, quality=QUALITY)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(memory.getvalue()).decode()}"


def _px(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
