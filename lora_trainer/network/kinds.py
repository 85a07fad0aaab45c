"""The adapter types that can be trained and read. One more is one file and one line here."""

from __future__ import annotations

from collections.abc import Iterable

from lora_trainer.network.adapter import Adapter
from lora_trainer.network.lora import LoraModule

KINDS: tuple[type[Adapter], ...] = (LoraModule,)
PARTS: dict[str, str] = {spelling: part for kind in KINDS for spelling, part in kind.FILE_PARTS.items()}
"""What may stand behind a module's key in a file -> the part that it is."""


def kind_of(parts: Iterable[str]) -> type[Adapter]:
    """The type that a module with these parts is of: the first that has them all.

    Raises:
        LookupError: if no type has.
    """
    wanted = set(parts)
    for kind in KINDS:
        if wanted <= set(kind.FILE_PARTS.values()):
            return kind
    raise LookupError
