"""How much generated pictures look like the training images to the base model itself.

DiffSim (arXiv 2412.14580) compares two pictures by the UNet's own self-attention: what one picture's queries find in
the other's keys and values, against what they find in its own. Here in the middle block, with little noise and no text.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_trainer.measures.probe import Probe, fixed_noise

TIMESTEP = 100
MIDDLE = ("mid_block", "middle_block")  # diffusers' and ldm's name


def features(probe: Probe, latents: Tensor) -> Tensor:
    """Queries, keys and values [N, 3, heads, tokens, width] of pictures [N, 4, h, w] of one size; the base model's.

    Call it without a LoRA at work: likeness is judged by eyes that weren't trained on the images.
    """
    caught: dict[str, list[Tensor]] = {"to_q": [], "to_k": [], "to_v": []}
    with _listening(_self_attention(probe.model.unet), caught) as heads:
        noise = fixed_noise(latents.shape[1:], "likeness").expand_as(latents)
        steps = torch.full((len(latents),), TIMESTEP)
        probe.predict(probe.schedule.add_noise(latents, noise, steps), steps, [""] * len(latents))
    joined = [torch.cat(rows).float().cpu() for rows in caught.values()]
    return torch.stack([row.unflatten(-1, (heads, -1)).transpose(1, 2) for row in joined], dim=1)


def likeness(pictures: Tensor, images: Tensor) -> Tensor:
    """Aligned attention scores [N, M] in -1…1 of pictures against images; both as :func:`features` gives them."""
    return torch.stack([(_aligned(one, images) + _aligned_back(one, images)) / 2 for one in pictures])


def nearest(pictures: Tensor, images: Tensor, without_self: bool = False) -> Tensor:
    """Each picture's score against the image that it is most like, [N].

    Args:
        without_self: both are the same pictures, and none is compared with itself: the ceiling.
    """
    scores = likeness(pictures, images)
    if without_self:
        scores = scores.masked_fill(torch.eye(len(scores), dtype=torch.bool), -1.0)
    return scores.amax(1)


def _aligned(one: Tensor, images: Tensor) -> Tensor:
    """cos(what q of the one finds in itself, what it finds in the images), mean over heads and tokens, [M]."""
    q, k, v = one
    own = F.scaled_dot_product_attention(q, k, v)
    found = F.scaled_dot_product_attention(q.expand_as(images[:, 1]), images[:, 1], images[:, 2])
    return F.cosine_similarity(found, own.expand_as(found), dim=-1).mean(dim=(1, 2))


def _aligned_back(one: Tensor, images: Tensor) -> Tensor:
    own = F.scaled_dot_product_attention(images[:, 0], images[:, 1], images[:, 2])
    k, v = one[1].expand_as(images[:, 1]), one[2].expand_as(images[:, 2])
    return F.cosine_similarity(F.scaled_dot_product_attention(images[:, 0], k, v), own, dim=-1).mean(dim=(1, 2))


def _self_attention(unet: nn.Module) -> Any:
    """The middle block's first self-attention; all hosts' classes name its projections alike."""
    middle = next(part for name, part in unet.named_children() if name in MIDDLE)
    return next(module for name, module in middle.named_modules() if name.endswith("attn1"))


@contextmanager
def _listening(attention: Any, caught: dict[str, list[Tensor]]) -> Iterator[int]:
    handles = [
        getattr(attention, name).register_forward_hook(lambda _m, _i, out, rows=rows: rows.append(out.detach()))
        for name, rows in caught.items()
    ]
    try:
        yield int(attention.heads)
    finally:
        for handle in handles:
            handle.remove()
