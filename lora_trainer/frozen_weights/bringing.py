"""Weights from CPU memory to a card, on a stream of their own and ahead of use."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor

AHEAD = 256 << 20  # bytes that may be brought before what was brought earlier has been computed with


class Order:
    """What will be asked for next: what came after the same two last time. Every step asks in the same order."""

    def __init__(self) -> None:
        self._followers: dict[tuple[int, int, bool], int] = {}
        self._last = (0, 0, False)

    def after(self, key: int, backward: bool) -> int | None:
        """Note that ``key`` is asked for, in a forward or a backward pass; None if nothing is known yet."""
        self._followers[self._last] = key
        self._last = (self._last[1], key, backward)
        return self._followers.get(self._last)


class Bringer:
    """Brings weights to a device. Anywhere but on CUDA it simply copies them."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: Any = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._order = Order()
        self._known: dict[int, Tensor] = {}
        self._coming: dict[int, tuple[Tensor, Any]] = {}  # at most one
        self._unused: deque[tuple[Any, int]] = deque()  # what was brought, and when the card gets there
        self._ahead = 0

    def bring(self, numbers: Tensor) -> Tensor:
        """``numbers`` on the device, ready for the current stream; begins to bring what will be asked for next."""
        if self._stream is None:
            return numbers.to(self._device)
        key = id(numbers)
        self._known[key] = numbers
        here, ready = self._coming.pop(key) if key in self._coming else self._start(numbers)
        current = torch.cuda.current_stream(self._device)
        current.wait_event(ready)
        here.record_stream(current)  # its memory is used again only after this stream is done with it
        self._wait_for_the_card(current, here.nbytes)
        following = self._order.after(key, torch._C._current_graph_task_id() != -1)
        self._coming.clear()  # of a guess that was wrong
        if following is not None:
            self._coming[following] = self._start(self._known[following])
        return here

    def _start(self, numbers: Tensor) -> tuple[Tensor, Any]:
        with torch.cuda.stream(self._stream):
            here = numbers.to(self._device, non_blocking=True)
            return here, self._stream.record_event()

    def _wait_for_the_card(self, current: Any, size: int) -> None:
        """Python is ahead of the card; without a bound, a whole pass would be brought at once."""
        self._unused.append((current.record_event(), size))
        self._ahead += size
        while self._ahead > AHEAD and len(self._unused) > 1:
            reached, passed = self._unused.popleft()
            reached.synchronize()
            self._ahead -= passed


def pinned(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` in CPU memory; where it is to be brought to CUDA, in memory that the card reads by itself."""
    if device.type != "cuda" or (tensor.device.type == "cpu" and tensor.is_pinned()):
        return tensor.to("cpu")
    try:
        return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor)
    except RuntimeError:  # the system limits how much there may be of it
        return tensor.to("cpu")
