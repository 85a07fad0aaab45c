"""What the job asks of an errand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from lora_trainer.hosts.base import Host
    from lora_trainer.ui.states import Stage


class Errand(Protocol):
    """Something that takes the model's turn."""

    name: str  # as the page shows it

    def stages(self, host: Host, stopped: Callable[[], bool]) -> Iterator[Stage]:
        """Do it; between two stages the host may serve others. ``stopped`` is asked before each piece of work."""
