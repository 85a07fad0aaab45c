"""LoRA for open_clip's attention: one ``nn.MultiheadAttention`` that never calls its parts as modules.

Its forward hands ``in_proj_weight`` and ``out_proj.weight`` to one function, so hooks on children don't fire and a hook
on the whole comes too late. While attached, the instance's ``forward`` is shadowed by one that does the same
projections and attention, with the LoRA's change added to q, k, v and the output. Weights aren't written or copied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_trainer.network.lora import LoraModule

_MISSING: Any = object()


class AttentionAdapter:
    """Adds the LoRAs of q, k, v and the output projection to one attention module."""

    def __init__(self, module: Any, layers: dict[str, LoraModule]) -> None:
        self.module = module
        self.layers = layers
        self._plain: Callable[..., tuple[Tensor, Tensor | None]] | None = None
        self._own: Any = _MISSING

    def attach(self) -> None:
        """Shadow the module's forward."""
        self._own = self.module.__dict__.get("forward", _MISSING)
        self._plain = self.module.forward
        self.module.__dict__["forward"] = self._forward

    def detach(self) -> None:
        """Uncover the module's forward again."""
        if self._plain is None:
            return
        if self._own is _MISSING:
            self.module.__dict__.pop("forward", None)
        else:
            self.module.__dict__["forward"] = self._own
        self._plain = None

    def _forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        assert self._plain is not None
        control = next(iter(self.layers.values())).control
        if not control.active:
            return self._plain(query, key, value, key_padding_mask, need_weights, attn_mask, **options)
        if key_padding_mask is not None or need_weights or options.get("is_causal"):
            raise NotImplementedError("The text encoder asks its attention for more than CLIP's text towers do.")
        q, k, v = self._project(query, key, value)
        joined = self._attend(q, k, v, attn_mask)
        out: nn.Module = self.module.out_proj
        return self._add("out", F.linear(joined, out.weight, out.bias), joined), None  # type: ignore[arg-type]

    def _add(self, slot: str, y: Tensor, x: Tensor) -> Tensor:
        layer = self.layers.get(slot)
        return y if layer is None else layer.add_to(y, x)

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weight, bias = self.module.in_proj_weight, self.module.in_proj_bias
        if query is key and key is value:
            q, k, v = F.linear(query, weight, bias).chunk(3, dim=-1)
        else:
            biases = (None,) * 3 if bias is None else bias.chunk(3)
            inputs = zip((query, key, value), weight.chunk(3), biases, strict=True)
            q, k, v = (F.linear(x, part, own) for x, part, own in inputs)
        return self._add("q", q, query), self._add("k", k, key), self._add("v", v, value)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Scaled dot-product attention; q, k, v [T, B, C] (or [B, T, C] with batch_first)."""
        heads, batch_first = self.module.num_heads, self.module.batch_first

        def split(x: Tensor) -> Tensor:
            x = x if batch_first else x.transpose(0, 1)
            return x.unflatten(-1, (heads, -1)).transpose(1, 2)  # [B, heads, T, C/heads]

        if mask is not None:
            if mask.dtype == torch.bool:  # True forbids here and allows there
                mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill_(mask, float("-inf"))
            mask = mask.to(q.dtype)
            mask = mask.unflatten(0, (-1, heads)) if mask.dim() == 3 else mask
        dropout = self.module.dropout if self.module.training else 0.0
        joined = F.scaled_dot_product_attention(split(q), split(k), split(v), attn_mask=mask, dropout_p=dropout)
        joined = joined.transpose(1, 2).flatten(2)
        return joined if batch_first else joined.transpose(0, 1)
