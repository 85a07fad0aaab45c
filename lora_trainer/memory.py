"""The accelerator's memory; on a processor, the machine's."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
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


def release_all() -> None:
    """Give back what is no longer used, wherever a model may be."""
    import torch

    release(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


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


def free_bytes(device: torch.device) -> int | None:
    """Bytes that this process can still take: what nobody uses, and what PyTorch keeps in reserve. None where that
    can't be told."""
    import torch

    if device.type == "cuda":
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserve
    if device.type == "cpu" and find_spec("psutil") is not None:
        import psutil

        return int(psutil.virtual_memory().available)
    found = in_use(device)
    return None if found is None else found[1] - found[0]


def has_own_memory(device: torch.device) -> bool:
    """Whether a device has memory beside the machine's, so that what is moved there takes none of it."""
    return device.type not in ("cpu", "mps")


@contextmanager
def no_more_than(device: torch.device, limit: int | None) -> Iterator[None]:
    """While it lasts, PyTorch takes at most ``limit`` bytes more than now; beyond that it says "out of memory".

    Some drivers would rather move memory to the machine's own, where every step takes a hundred times as long.
    On anything but CUDA, and without a limit, nothing happens.
    """
    import torch

    if device.type != "cuda" or limit is None:
        yield
        return
    whole = torch.cuda.get_device_properties(device).total_memory
    share = min((torch.cuda.memory_allocated(device) + limit) / whole, 1.0)
    torch.cuda.set_per_process_memory_fraction(share, device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def size_text(size: float) -> str:
    """Bytes as people say them of a card: 8 GB are 2³³."""
    return f"{size / 2**30:.1f} GB" if size >= 2**29 else f"{size / 2**20:.0f} MB"
