"""Captions with weights, encoded as sd-scripts does it: each token's vector is multiplied, nothing is evened out."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lora_trainer.dataset.weighted import plain_text, token_weights
from lora_trainer.errors import ConfigError
from lora_trainer.hosts.base import Conditioning, TakenModel

ROW = 75  # tokens between start and end


def encode_weighted(model: TakenModel, captions: Sequence[str], length: int, clip_skip: int) -> Conditioning:
    """Encode captions with weights; differentiable where gradients are enabled.

    Raises:
        ConfigError: if the host cuts long captions where their commas are, so that no vector's token is known.
    """
    made = model.encode_captions([plain_text(caption) for caption in captions], length, clip_skip)
    places = made.context.shape[1]
    if length > ROW and places != length + 2:
        raise ConfigError("weighted_captions needs max_token_length 75 in a WebUI, which cuts longer captions itself.")
    rows = [_row(token_weights(caption), places) for caption in captions]
    weights = torch.tensor(rows, dtype=made.context.dtype, device=made.context.device)
    return Conditioning(made.context * weights[..., None], made.pooled)


def _row(weights: Sequence[float], places: int) -> list[float]:
    """The weight of every vector: of the start, the tokens, the end and what fills up."""
    row = [1.0, *weights[: places - 2]]
    return row + [1.0] * (places - len(row))
