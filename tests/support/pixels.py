"""Images loaded as training loads them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from lora_trainer.config import DatasetConfig
from lora_trainer.dataset.buckets import place
from lora_trainer.dataset.decode import read_image
from lora_trainer.dataset.images import LoadedImage, load_pixels
from lora_trainer.dataset.items import Folder, ImageItem

Scan = Callable[..., object]


def load(path: Path, flip: bool = False, seed: int | None = None, **options: object) -> LoadedImage:
    """Load an image of the disk as it is trained."""
    config = DatasetConfig(**options)
    size = read_image(path)[0].size
    item = ImageItem(path, Folder(path.parent, 1, "", config=config), 1, (), "missing", size, place(size, config))
    crop, color = (None, None) if seed is None else (random.Random(seed), random.Random(seed))
    return load_pixels(item, flip, crop, color)


def bytes_of(pixels: torch.Tensor) -> np.ndarray:
    """[3, H, W] in -1…1 back to uint8 [H, W, 3]."""
    return ((pixels.numpy().transpose(1, 2, 0) + 1) * 127.5).round().astype(np.uint8)
