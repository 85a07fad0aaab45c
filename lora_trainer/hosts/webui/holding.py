"""What a WebUI's adapter gives for a job: the model, taken but not for good, and what keeps it from being changed."""

from __future__ import annotations

from typing import Protocol

from lora_trainer.hosts.base import TakenModel


class LentModel(TakenModel, Protocol):
    """A taken model that can be given back and taken again while a job goes on."""

    def open(self) -> None:
        """Take it: what the WebUI did to it is undone."""

    def close(self) -> None:
        """Give it back as it was; does nothing if it is back."""

    def check(self) -> None:
        """Whether the model is still there.

        Raises:
            HostBusyError: if somebody unloaded or replaced it.
        """


class Pin(Protocol):
    """Keeps the WebUI from changing the model while a job holds it."""

    def remove(self) -> None:
        """Let changes through again, and make one that was put off; call it with the queue held."""

    def other_chosen(self) -> bool:
        """Whether another checkpoint is chosen by now: generations then wait for it, until the job ends."""
