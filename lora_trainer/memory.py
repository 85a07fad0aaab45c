"""The accelerator's memory; on a processor, the machine's."""

from __future__ import annotations

import gc
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def release(device: torch.device) -> None:
    """Give back what is no longer used."""
    import torch

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def in_use(device: torch.device) -> tuple[int, int] | None:
    """Bytes in use and bytes there are: of the whole card, whoever uses them; on a processor, this process's of the
    machine's. None where that can't be told."""
    import torch

    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return total - free, total
    if device.type == "mps":
        return torch.mps.driver_allocated_memory(), torch.mps.recommended_max_memory()
    if device.type != "cpu" or find_spec("psutil") is None:
        return None
    import psutil

    return psutil.Process().memory_info().rss, psutil.virtual_memory().total
