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
        """As ``nn.MultiheadAttention.forward``, for the calls that CLIP's text towers make.

        A LoRA that changes nothing leaves the output as it is, bit for bit: without gradients the module's own forward
        runs, which may be torch's fused one; with gradients the operations are those of torch's
        ``multi_head_attention_forward``, on tensors of the same layout.
        """
        if not self._changes():
            return self.plain(query, key, value, key_padding_mask, need_weights, attn_mask, **options)
        if key_padding_mask is not None or need_weights or options.get("is_causal"):
            raise NotImplementedError("The text encoder asks its attention for more than CLIP's text towers do.")
        inputs = _distinct(query, key, value, lambda x: x if self.module.batch_first else x.transpose(0, 1))
        joined = self._attend(*self._project(*inputs), attn_mask)
        out, (batch, tokens, _) = self.module.out_proj, inputs[0].shape
        y = F.linear(joined, out.weight, out.bias).view(tokens, batch, -1)
        y = self._add("out", y, joined.view(tokens, batch, -1).transpose(0, 1))
        return (y.transpose(0, 1) if self.module.batch_first else y), None

    def _changes(self) -> bool:
        """Whether any adapter has an effect. Norms are asked for only without gradients: that waits for a GPU."""
        active = [layer for layers in self.networks for layer in layers.values() if layer.control.active]
        return any(torch.is_grad_enabled() or bool(layer.norm()) for layer in active)

    def _add(self, slot: str, y: Tensor, x: Tensor) -> Tensor:
        """``y`` [T, B, C] plus what the LoRAs of a slot make of ``x`` [B, T, C]: their dropout goes by image."""
        for layers in self.networks:
            if slot in layers:
                y = layers[slot].add_to(y.transpose(0, 1), x).transpose(0, 1)
        return y

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v [T, B, C] of inputs [B, T, C]."""
        weight, bias = self.module.in_proj_weight, self.module.in_proj_bias
        first, second, third = _distinct(query, key, value, lambda x: x.transpose(0, 1))
        if query is key and key is value:
            packed = F.linear(first, weight, bias)
            q, k, v = packed.unflatten(-1, (3, -1)).unsqueeze(0).transpose(0, -2).squeeze(-2).contiguous()
        else:
            biases = (None,) * 3 if bias is None else bias.chunk(3)
            parts = zip((first, second, third), weight.chunk(3), biases, strict=True)
            q, k, v = (F.linear(x, part, own) for x, part, own in parts)
        return self._add("q", q, query), self._add("k", k, key), self._add("v", v, value)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Scaled dot-product attention of q, k, v [T, B, C]; gives [T·B, C]."""
        heads = self.module.num_heads

        def split(x: Tensor) -> Tensor:
            tokens, batch, width = x.shape
            x = x.reshape(tokens, batch * heads, width // heads).transpose(0, 1)
            return x.view(batch, heads, tokens, width // heads)

        if mask is not None:
            if mask.dtype == torch.bool:  # True forbids here and allows there
                mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill_(mask, float("-inf"))
            mask = mask.to(q.dtype)
            mask = mask.unflatten(0, (-1, heads)) if mask.dim() == 3 else mask[None, None]
        dropout = self.module.dropout if self.module.training else 0.0
        joined = F.scaled_dot_product_attention(split(q), split(k), split(v), mask, dropout)
        return joined.permute(2, 0, 1, 3).reshape(-1, q.shape[-1])


def _distinct(query: Tensor, key: Tensor, value: Tensor, made: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """``made`` of each; what is one tensor stays one, so that its LoRAs share one copy of it."""
    of = {id(x): made(x) for x in (query, key, value)}
    return [of[id(x)] for x in (query, key, value)]
