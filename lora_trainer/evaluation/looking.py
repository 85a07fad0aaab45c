"""What pictures of a file at a strength show, against the base model's pictures and the training images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lora_trainer.measures.interval import Estimate, bootstrap
from lora_trainer.measures.likeness import features, nearest
from lora_trainer.measures.probe import Probe
from lora_trainer.measures.sameness import nearest_distance, spread

NARROW = 0.02  # ceiling minus floor: closer than that, likeness says nothing


@dataclass(frozen=True)
class Look:
    """Pictures with the trigger; what wasn't measured is None.

    likeness: to the most similar training image; 0 is the base model's pictures, 1 training images among themselves.
    variety: spread of pictures of the trigger alone over their seeds, of that of the base model's.
    loudness: deviation of the latents, of that of the base model's pictures.
    distance: to the nearest training image, of the base model's pictures' distance.
    """

    loudness: float
    variety: float | None = None
    likeness: Estimate | None = None
    distance: float | None = None


class Eyes:
    """The references that pictures are held against: made once for a test."""

    def __init__(self, probe: Probe, base: Tensor, base_short: Tensor, images: Tensor | None) -> None:
        """Latents [N, 4, h, w]: the base model's pictures of the same prompts and of the short one; training images."""
        self.probe, self.base, self.images = probe, base, images
        self.base_spread = spread(base_short)
        self.floor = self.ceiling = 0.0
        if images is not None and images.shape[1:] == base.shape[1:]:
            self.seen = features(probe, images)
            self.floor = float(nearest(features(probe, base), self.seen).mean())
            self.ceiling = float(nearest(self.seen, self.seen, without_self=True).mean())

    def look(self, pictures: Tensor, short: Tensor) -> Look:
        """Judge latents of pictures in other contexts and of the trigger alone."""
        likeness = distance = None
        if self.ceiling - self.floor > NARROW and self.images is not None:
            scores = nearest(features(self.probe, pictures), self.seen)
            shares = ((scores - self.floor) / (self.ceiling - self.floor)).numpy()
            likeness = bootstrap(shares, lambda part: float(part.mean()))
            mine, theirs = (nearest_distance(part, self.images).mean() for part in (pictures, self.base))
            distance = float(mine / theirs)
        return Look(
            loudness=float(torch.cat([pictures, short]).std() / self.base.std()),
            variety=spread(short) / self.base_spread if len(short) > 1 and self.base_spread else None,
            likeness=likeness,
            distance=distance,
        )
