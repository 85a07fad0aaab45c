"""How alike pictures are to each other and to the training images, in latents: layout and colour more than shape."""

from __future__ import annotations

import torch
from torch import Tensor


def spread(latents: Tensor) -> float:
    """Mean distance of pictures of one prompt over all pairs, as root mean square of latents [N, 4, h, w]."""
    flat = latents.flatten(1)
    n = len(flat)
    return float(torch.cdist(flat, flat).sum() / (n * (n - 1)) / flat.shape[1] ** 0.5) if n > 1 else 0.0


def nearest_distance(latents: Tensor, images: Tensor) -> Tensor:
    """Distance of each picture's latent to the nearest training image's or its mirror's, root mean square, [N]."""
    both = torch.cat([images, images.flip(-1)]).flatten(1)
    return torch.cdist(latents.flatten(1), both).amin(1) / both.shape[1] ** 0.5
