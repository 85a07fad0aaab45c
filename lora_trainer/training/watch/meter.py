"""How much memory is in use, told once in a while."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator

import torch

from lora_trainer.memory import in_use
from lora_trainer.training.events import MemoryUse

EVERY = 1.0  # seconds
GB = 2**30

log = logging.getLogger(__name__)


class Meter:
    """Reads the memory between the events of a run. PyTorch keeps what a step needed, so a peak is seen afterwards."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.peak, self._last, self._works = device, 0.0, -math.inf, True

    def read(self) -> Iterator[MemoryUse]:
        """Nothing if it was read a moment ago, or can't be read here."""
        if not self._works or time.monotonic() - self._last < EVERY:
            return
        self._last = time.monotonic()
        try:
            found = in_use(self.device)
        except Exception as error:  # a driver that doesn't say is no reason to end a run
            log.info("The memory in use can't be read: %s", error)
            found = None
        self._works = found is not None
        if found is not None:
            now, limit = (value / GB for value in found)
            self.peak = max(self.peak, now)
            yield MemoryUse(round(now, 3), round(self.peak, 3), round(limit, 3))
