"""Captions through the WebUI's own text encoders, as literal text: its prompt syntax means nothing in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lora_trainer.errors import ConfigError
from lora_trainer.hosts.base import Conditioning, SizeConditioning
from lora_trainer.hosts.webui.tokens import token_rows


class Engine:
    """reForge's prompt encoder, which is A1111's around other layers, as one of Forge's text engines."""

    def __init__(self, encoder: Any, sdxl: bool) -> None:
        self._encoder = encoder
        self.text_encoder, self.embeddings = encoder.wrapped, encoder.hijack
        self.minimal_clip_skip = encoder.minimal_clip_skip
        self.final_layer_norm = not sdxl
        self._projection: Any = getattr(encoder.wrapped, "text_projection", None)
        self.return_pooled = sdxl and self._projection is not None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def project(self, pooled: Tensor) -> Tensor:
        """The pooled output for SDXL."""
        projection: Tensor = self._projection
        return pooled.float() @ projection.to(pooled.device).float()


def engines(model: Any) -> list[Any]:
    """The WebUI's text engines, one an encoder, in the order of their outputs; empty where it has none of CLIP's."""
    conditioner = getattr(model, "conditioner", None)
    inner = list(conditioner.embedders)[:2] if conditioner is not None else [getattr(model, "cond_stage_model", None)]
    wrapped = [one for one in inner if hasattr(getattr(one, "wrapped", None), "transformer")]
    if wrapped:
        return [Engine(one, sdxl=conditioner is not None) for one in wrapped]
    pair = [getattr(model, f"text_processing_engine_{which}", None) for which in "lg"]
    found = pair if any(pair) else [getattr(model, "text_processing_engine", None)]
    return found if all(hasattr(getattr(one, "text_encoder", None), "transformer") for one in found) else []


def transformers(model: Any) -> list[nn.Module]:
    """The text encoders as they are called."""
    return [engine.text_encoder.transformer for engine in engines(model)]


def towers(model: Any) -> list[nn.Module]:
    """The text encoders without what no output passes through.

    Some of these WebUIs give each one a projection; where the checkpoint has none, it is memory that nobody has filled.
    """
    return [
        transformer if _projects(engine) else getattr(transformer, "text_model", transformer)
        for engine, transformer in zip(engines(model), transformers(model), strict=True)
    ]


def _projects(engine: Any) -> bool:
    """Whether the encoder's own projection makes its pooled output."""
    own = engine.return_pooled and not isinstance(engine, Engine) and engine.text_projection
    return bool(own and engine.embedding_key != "clip_l")


def in_fp32(model: Any) -> list[nn.Module]:
    """The modules that Forge itself switches to fp32 at its first prompt, and leaves so: the embeddings."""
    tables = [
        engine.text_encoder.transformer.text_model.embeddings
        for engine in engines(model)
        if not isinstance(engine, Engine)
    ]
    return [module for table in tables for module in table.modules()]


def encode_captions(
    model: Any, captions: Sequence[str], max_token_length: int, clip_skip: int, device: torch.device
) -> Conditioning:
    """Encode captions to [B, n·77, C] and, for SDXL, pooled [B, P]; differentiable where gradients are enabled.

    Args:
        clip_skip: the layer from the end; SDXL's encoders have a fixed one.
    """
    states, pooled = [], None
    for engine in engines(model):
        fixed = bool(getattr(model, "is_sdxl", False))
        skip = engine.minimal_clip_skip if fixed else max(clip_skip, engine.minimal_clip_skip)
        rows, own = _encode(engine, token_rows(engine, captions, max_token_length), skip, device)
        states.append(rows)
        pooled = own if own is not None else pooled
    return Conditioning(torch.cat(states, dim=-1), pooled)


def _encode(engine: Any, tokens: Tensor, skip: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """States [B, n·77, C] of tokens [B, n, 77], and the pooled output of each image's first row."""
    transformer = engine.text_encoder.transformer
    depth = transformer.config.num_hidden_layers
    if skip > depth:
        raise ConfigError(f"clip_skip {skip} is too high: the text encoder has {depth} layers.")
    engine.embeddings.fixes = None  # vectors of embeddings for the next call
    result = transformer(tokens.flatten(0, 1).to(device), output_hidden_states=True)
    states = result.hidden_states[-skip]
    if engine.final_layer_norm:
        states = transformer.text_model.final_layer_norm(states)
    pooled = None
    if engine.return_pooled:
        pooled = result.pooler_output
        if isinstance(engine, Engine):
            pooled = engine.project(pooled)
        elif _projects(engine):
            pooled = transformer.text_projection(pooled)
        pooled = pooled.unflatten(0, tokens.shape[:2])[:, 0].float()
    return states.unflatten(0, tokens.shape[:2]).flatten(1, 2).float(), pooled


def size_vector(model: Any, sizes: Sequence[SizeConditioning], device: torch.device) -> Tensor:
    """SDXL's conditioning on sizes, [B, 6·256]: original size, crop corner and target size, each (height, width)."""
    values = torch.tensor([[*size.original, *size.crop, *size.target] for size in sizes], dtype=torch.float32)
    embedder = model.embedder if hasattr(model, "embedder") else list(model.conditioner.embedders)[2]
    embedded: Tensor = embedder(values.flatten().to(device))
    return embedded.view(len(sizes), -1)
