"""Networks that take part in a model's forward passes for a while."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol


class Attachable(Protocol):
    """A network."""

    is_attached: bool

    def __enter__(self) -> Any:
        """Attach it."""

    def __exit__(self, *exc: object) -> None:
        """Detach it."""


@contextmanager
def attached(networks: Sequence[Attachable]) -> Iterator[None]:
    """While it lasts, these networks take part; those that do already are left as they are."""
    with ExitStack() as stack:
        for network in networks:
            if not network.is_attached:
                stack.enter_context(network)
        yield
