"""Captions through the WebUI's own text encoders, as literal text.

The WebUI's prompt encoder gives parentheses, brackets, ``BREAK`` and the names of embeddings a meaning. A caption has
none of that, so its tokens go to the encoder directly, cut into rows of 77 where the WebUI would cut them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from modules import devices, sd_hijack, shared
from torch import Tensor

from lora_trainer.errors import ConfigError
from lora_trainer.hosts.base import Conditioning, SizeConditioning
from lora_trainer.hosts.webui.tokens import token_rows


def encode_captions(model: Any, captions: Sequence[str], max_token_length: int, clip_skip: int) -> Conditioning:
    """Encode captions to [B, n·77, C] and, for SDXL, pooled [B, P]; differentiable where gradients are enabled."""
    with devices.autocast():
        if not getattr(model, "is_sdxl", False):
            states, _ = _encode(model.cond_stage_model, captions, max_token_length, clip_skip)
            return Conditioning(states.float())
        first, second = list(model.conditioner.embedders)[:2]
        small, _ = _encode(first, captions, max_token_length, clip_skip)
        large, pooled = _encode(second, captions, max_token_length, clip_skip)
        return Conditioning(
            torch.cat([small.float(), large.float()], dim=-1), None if pooled is None else pooled.float()
        )


def _encode(encoder: Any, captions: Sequence[str], length: int, clip_skip: int) -> tuple[Tensor, Tensor | None]:
    tokens = token_rows(encoder, captions, length)
    rows = tokens.flatten(0, 1).to(devices.device)
    sd_hijack.model_hijack.fixes = None  # vectors of embeddings for the next call
    if hasattr(encoder.wrapped, "transformer"):
        states, pooled = _clip(encoder.wrapped, rows, clip_skip), None
    else:
        states, pooled = _open_clip(encoder.wrapped, rows)
    states = states.unflatten(0, tokens.shape[:2]).flatten(1, 2)
    return states, None if pooled is None else pooled.unflatten(0, tokens.shape[:2])[:, 0]


def _clip(wrapped: Any, rows: Tensor, clip_skip: int) -> Tensor:
    """CLIP-L. SD 1.x uses the ``clip_skip``-th last layer; SDXL a fixed one, unless the WebUI's option differs."""
    layer = getattr(wrapped, "layer", "last")
    sdxl = hasattr(wrapped, "return_pooled")  # sgm's class, which applies no final norm to hidden layers
    skips = clip_skip if not sdxl or shared.opts.data.get("sdxl_clip_l_skip", False) else 0
    depth = wrapped.transformer.config.num_hidden_layers
    if skips > depth:
        raise ConfigError(f"clip_skip {skips} is too high: the text encoder has {depth} layers.")
    result = wrapped.transformer(input_ids=rows, output_hidden_states=True)
    if sdxl:
        if skips:
            return result.hidden_states[-skips]
        return result.last_hidden_state if layer == "last" else result.hidden_states[wrapped.layer_idx]
    if skips > 1:
        return wrapped.transformer.text_model.final_layer_norm(result.hidden_states[-skips])
    return result.last_hidden_state


def _open_clip(wrapped: Any, rows: Tensor) -> tuple[Tensor, Tensor | None]:
    """SD 2's encoder, or SDXL's second one with its pooled output; their layer is fixed."""
    result = wrapped.encode_with_transformer(rows)
    return (result[wrapped.layer], result.get("pooled")) if isinstance(result, dict) else (result, None)


def size_vector(model: Any, sizes: Sequence[SizeConditioning]) -> Tensor:
    """SDXL's conditioning on sizes, [B, 6·256]: original size, crop corner and target size, each (height, width)."""
    values = {
        "original_size_as_tuple": [size.original for size in sizes],
        "crop_coords_top_left": [size.crop for size in sizes],
        "target_size_as_tuple": [size.target for size in sizes],
    }
    embedders = {embedder.input_key: embedder for embedder in list(model.conditioner.embedders)[2:]}
    parts = [
        embedders[key](torch.tensor(value, dtype=torch.float32, device=devices.device)) for key, value in values.items()
    ]
    return torch.cat(parts, dim=1)
