"""What the watch is told about a step, and what it tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["loss", "gradient", "weights", "slow", "skipped", "disk", "image", "memory"]
UNKNOWN = float("nan")


@dataclass(frozen=True)
class Facts:
    """One optimiser step, after it was applied; numbers that aren't known are NaN."""

    step: int  # 1 after the first
    loss: float  # mean over the step's images
    baseline: float = UNKNOWN  # the base model's at the same images, captions, noise and timesteps
    expected: float = UNKNOWN  # what the base model's is at such timesteps, from the steps where it was measured
    grad_norm: float = UNKNOWN  # of all gradients, before clipping
    weight_norm: float = UNKNOWN  # of all LoRA weights that the step began with
    seconds: float = UNKNOWN
    skipped: bool = False  # fp16 gradients overflowed: the weights didn't move


@dataclass(frozen=True)
class Finding:
    """What is wrong, in one sentence, and what helps, in another.

    Attributes:
        good: of a training that has diverged, the number of steps after which all was well still; None where the
            training itself is sound.
    """

    kind: Kind
    text: str
    remedy: str
    good: int | None = None

    def __str__(self) -> str:
        return f"{self.text} {self.remedy}"
