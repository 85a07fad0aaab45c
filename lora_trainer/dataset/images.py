"""From an image file to the pixels of one use: resize, crop, colour, mirror."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from lora_trainer.dataset.buckets import Size, crop_box, size_conditioning
from lora_trainer.dataset.decode import read_image
from lora_trainer.dataset.items import ImageItem
from lora_trainer.dataset.masks import read_mask
from lora_trainer.errors import DatasetError
from lora_trainer.hosts.base import SizeConditioning

if TYPE_CHECKING:
    from torch import Tensor

COLOR_CHANCE = 0.33  # sd-scripts: one of hue and gamma, for a third of the uses
HUE_SHIFT = 8 / 180  # of the full circle, either way
GAMMA = (0.95, 1.05)
FILTERS = {  # sd-scripts' names
    "area": Image.Resampling.BOX, "box": Image.Resampling.BOX, "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC, "cubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR,
    "linear": Image.Resampling.BILINEAR, "nearest": Image.Resampling.NEAREST,
}  # fmt: skip


TURNS = {90: Image.Transpose.ROTATE_270, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_90}


def rotated(image: Image.Image, degrees: int) -> Image.Image:
    """Turned clockwise by a multiple of 90 degrees; no pixel changes."""
    turn = TURNS.get(degrees % 360)
    return image if turn is None else image.transpose(turn)


@dataclass(frozen=True)
class LoadedImage:
    """The pixels of one use of an image."""

    path: Path
    pixels: Tensor  # [3, H, W] float32 in -1…1
    mask: Tensor | None  # [1, H, W] float32 in 0…1 (all 1 without one); None unless there may be masks
    size: SizeConditioning


def load_pixels(
    item: ImageItem,
    flip: bool = False,
    crop_rng: random.Random | None = None,
    color_rng: random.Random | None = None,
) -> LoadedImage:
    """Read an image as it is trained: upright, on white where transparent, resized, cropped, mirrored if ``flip``.

    Args:
        crop_rng: places the crop if ``random_crop`` is on; otherwise, and without it, the centre is cut out.
        color_rng: varies the colours if ``color_aug`` is on.

    Raises:
        DatasetError: the file can't be read or isn't the one any more that was scanned.
    """
    import torch

    image, alpha = read_image(item.path)
    config = item.folder.config
    if image.size != item.size:
        raise DatasetError(
            f"{item.path} changed while it was used: it was {item.size[0]}x{item.size[1]} px, now {image.size[0]}x"
            f"{image.size[1]}; start training again."
        )
    box = crop_box(item.placement.resized, item.bucket, crop_rng if config.random_crop else None)
    colour = _fit(image, item.placement.resized, box, config.resize_interpolation)
    if color_rng is not None and config.color_aug:
        colour = vary_color(colour, color_rng)
    mask = None
    if config.alpha_mask or config.masked_loss:
        plane = _counting(item, image.size, alpha if config.alpha_mask else None)
        values = _mirror(_fit(plane, item.placement.resized, box), flip)[None].astype(np.float32) / np.float32(255)
        mask = torch.from_numpy(np.ascontiguousarray(values))
    chw = _mirror(colour, flip).transpose(2, 0, 1).astype(np.float32) / np.float32(127.5) - 1
    pixels = torch.from_numpy(np.ascontiguousarray(chw))
    return LoadedImage(item.path, pixels, mask, size_conditioning(item.size, item.bucket, flip))


def _counting(item: ImageItem, size: Size, alpha: Image.Image | None) -> Image.Image:
    """How much each pixel of an image counts, mode L: its mask, else its alpha channel, else all of it."""
    if item.mask is not None:
        plane = read_mask(item.mask)
        if plane.size != size:
            raise DatasetError(f"{item.mask} changed while it was used; start training again.")
        return plane
    return Image.new("L", size, 255) if alpha is None else alpha


def resize(image: Image.Image, size: Size, how: str = "") -> np.ndarray[Any, Any]:
    """Resize to uint8 [H, W(, C)] as sd-scripts does: exact area average if both sides shrink, else Lanczos.

    Args:
        how: another filter of Pillow's, by sd-scripts' names; ``area`` where a side grows is Pillow's box.
    """
    if image.size == size:
        return np.asarray(image)
    shrinks = image.width >= size[0] and image.height >= size[1]
    if how and not (how == "area" and shrinks):
        return np.asarray(image.resize(size, FILTERS[how]))
    if shrinks:
        rows = area_average(np.asarray(image), size[1])
        columns = area_average(np.ascontiguousarray(rows.swapaxes(0, 1)), size[0]).swapaxes(0, 1)
        return np.clip(columns + 0.5, 0, 255).astype(np.uint8)
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS))


def area_average(values: np.ndarray[Any, Any], length: int) -> np.ndarray[Any, Any]:
    """Shrink the first axis to ``length``: each result is the mean of the stretch that it covers, edges by their share.

    float32; the same as OpenCV's INTER_AREA along one axis, without rounding.
    """
    old = values.shape[0]
    edges = np.arange(length + 1) * old
    first, share = edges // length, (edges % length / length).astype(np.float32)
    share = share.reshape(-1, *[1] * (values.ndim - 1))
    sums = np.empty((length, *values.shape[1:]), np.float32)
    for i in range(length):  # ten times as fast as np.add.reduceat on uint8
        np.add.reduce(values[first[i] : first[i + 1]], axis=0, dtype=np.float32, out=sums[i])
    at_edge = share * values[np.minimum(first, old - 1)]
    return (sums - at_edge[:-1] + at_edge[1:]) * np.float32(length / old)


def vary_color(pixels: np.ndarray[Any, Any], rng: random.Random) -> np.ndarray[Any, Any]:
    """sd-scripts' colour augmentation of uint8 [H, W, 3]: nothing, a small turn of the hue, or a small gamma."""
    if rng.random() >= COLOR_CHANCE:
        return pixels
    if rng.random() < 0.5:
        turn = round(rng.uniform(-HUE_SHIFT, HUE_SHIFT) * 256)
        hsv = np.array(Image.fromarray(pixels).convert("HSV"))
        hsv[..., 0] = (hsv[..., 0].astype(np.int16) + turn) % 256
        return np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"))
    curve = (np.arange(256) / 255) ** rng.uniform(*GAMMA) * 255
    return np.round(curve).astype(np.uint8)[pixels]


def _fit(image: Image.Image, size: Size, box: tuple[int, int, int, int], how: str = "") -> np.ndarray[Any, Any]:
    left, top, right, bottom = box
    return resize(image, size, how)[top:bottom, left:right]


def _mirror(pixels: np.ndarray[Any, Any], flip: bool) -> np.ndarray[Any, Any]:
    return pixels[:, ::-1] if flip else pixels
