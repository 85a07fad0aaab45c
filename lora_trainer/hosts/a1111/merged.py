"""What the WebUI's Lora extension has merged into the weights, taken out again.

It merges networks into the weights and leaves them there after a generation, with a backup of each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from lora_trainer.hosts.webui.loras import extension

PATCHED = (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm, nn.MultiheadAttention)


def restore_base(model: Any) -> None:
    """Empty the list of active networks and take what they changed out of every weight; exact, from their backups."""
    networks = extension()
    if networks is None:
        return
    with torch.no_grad():
        networks.load_networks([])
        for module in _modules(model):
            networks.network_apply_weights(module)


def merged(model: Any) -> int:
    """How many modules still hold something of a network."""
    return sum(bool(getattr(module, "network_current_names", ())) for module in _modules(model))


def _modules(model: Any) -> Iterator[nn.Module]:
    """The modules that the extension may have changed."""
    for root in (model.model, model.cond_stage_model):
        yield from (module for module in root.modules() if isinstance(module, PATCHED))
