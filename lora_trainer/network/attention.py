"""LoRA for open_clip's attention: one ``nn.MultiheadAttention`` that never calls its parts as modules.

Its forward hands ``in_proj_weight`` and ``out_proj.weight`` to one function, so hooks on children don't fire and a hook
on the whole comes too late. While attached, the instance's ``forward`` is shadowed by one that does the same
projections and attention, with the LoRA's change added to q, k, v and the output. Weights aren't written or copied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lora_trainer.network.adapter import Adapter

Layers = Mapping[str, Adapter]  # by slot: q, k, v, out
_MISSING: Any = object()


def attach(module: Any, layers: Layers) -> None:
    """Add the LoRAs of an attention's projections; several networks may be attached to one module."""
    adapter = _adapter_of(module)
    if adapter is None:
        adapter = _Adapter(module)
        module.__dict__["forward"] = adapter.forward
    adapter.networks.append(layers)


def detach(module: Any, layers: Layers) -> None:
    """Take these LoRAs off again; with the last ones the module's own forward comes back."""
    adapter = _adapter_of(module)
    if adapter is None:
        return
    adapter.networks = [other for other in adapter.networks if other is not layers]
    if adapter.networks:
        return
    if adapter.shadowed is _MISSING:
        del module.__dict__["forward"]
    else:
        module.__dict__["forward"] = adapter.shadowed


def _adapter_of(module: Any) -> _Adapter | None:
    owner = getattr(module.__dict__.get("forward"), "__self__", None)
    return owner if isinstance(owner, _Adapter) else None


class _Adapter:
    """Stands in for the forward of one attention module."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.shadowed: Any = module.__dict__.get("forward", _MISSING)
        self.plain: Callable[..., tuple[Tensor, Tensor | None]] = module.forward
        self.networks: list[Layers] = []

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """As ``nn.MultiheadAttention.forward``, for the calls that CLIP's text towers make."""
        if not any(layer.control.active for layers in self.networks for layer in layers.values()):
            return self.plain(query, key, value, key_padding_mask, need_weights, attn_mask, **options)
        if key_padding_mask is not None or need_weights or options.get("is_causal"):
            raise NotImplementedError("The text encoder asks its attention for more than CLIP's text towers do.")
        q, k, v = self._project(query, key, value)
        joined = self._attend(q, k, v, attn_mask)
        out = self.module.out_proj
        return self._add("out", F.linear(joined, out.weight, out.bias), joined), None

    def _add(self, slot: str, y: Tensor, x: Tensor) -> Tensor:
        for layers in self.networks:
            if slot in layers:
                y = layers[slot].add_to(y, x)
        return y

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
