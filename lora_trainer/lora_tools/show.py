"""What a LoRA file is: its type, ranks, size and metadata."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_trainer.errors import counted
from lora_trainer.families import traits
from lora_trainer.lora_tools.files import read
from lora_trainer.lora_tools.words import words_of


@dataclass(frozen=True)
class Shown:
    """``types`` and ``parts`` count modules; ``ranks`` and ``alphas`` are the lowest and the highest.

    ``words`` are the learned words (pivotal tuning), with the number of their vectors.
    """

    path: Path
    size: int  # bytes
    family: str
    types: dict[str, int]
    parts: dict[str, int]
    ranks: tuple[float, float]
    alphas: tuple[float, float]
    words: dict[str, int]
    metadata: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**vars(self), "path": str(self.path)}

    def lines(self) -> list[str]:
        """The same for people, without the metadata."""
        counts = " and ".join(f"{counted(count, 'module')} of the {part}" for part, count in self.parts.items())
        return [
            f"{self.path.name}: {' and '.join(self.types)} for {self.family}, {self.size / 2**20:.1f} MB",
            f"{counts}; rank {_span(self.ranks)}, alpha {_span(self.alphas)}",
            *(f"learned word {word}, {counted(count, 'vector')}" for word, count in self.words.items()),
        ]


def show(path: Path) -> Shown:
    """Look at a file.

    Raises:
        FileError: if it can't be read.
    """
    file = read(path)
    weights = file.modules.values()
    parts = Counter("UNet" if key.startswith("lora_unet") else "text encoder" for key in sorted(file.modules)[::-1])
    family = traits(file.family).label if file.family else "a model family that it doesn't tell"
    types = dict(Counter(one.label for one in weights))
    words = {word: len(next(iter(tensors.values()))) for word, tensors in words_of(file.words).items()}
    return Shown(
        path, path.stat().st_size, family, types, dict(parts), _ends(one.rank for one in weights),
        _ends(one.alpha for one in weights), words, dict(sorted(file.metadata.items())),
    )  # fmt: skip


def _ends(numbers: Iterable[float]) -> tuple[float, float]:
    found = sorted(numbers)
    return found[0], found[-1]


def _span(ends: tuple[float, float]) -> str:
    low, high = ends
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
