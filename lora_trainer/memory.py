"""The accelerator's memory, and the machine's."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def release(device: torch.device) -> None:
    """Give back what is no longer used."""
    import torch

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
