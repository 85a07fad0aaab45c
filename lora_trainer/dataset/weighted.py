"""Weights in captions, as in a WebUI's prompt: ``(text)`` 1.1, ``[text]`` 1/1.1, ``(text:1.3)``; pure functions.

``\\(`` and its like are literal. What is nested multiplies.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from lora_trainer.tokens import tokenise

ROUND, SQUARE = 1.1, 1 / 1.1
Part = tuple[str, float]

_PIECE = re.compile(r"\\.|[()\[\]]|[^\\()\[\]]+|\\")
_NUMBER = re.compile(r"(.*):\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*", re.DOTALL)


def parts_of(caption: str) -> list[Part]:
    """The stretches of a caption and their weights; a bracket that isn't closed counts to the end."""
    found: list[Part] = []
    opened: list[tuple[str, int]] = []  # bracket, and how many parts were there before it
    for piece in _PIECE.findall(caption):
        if piece in "([":
            opened.append((piece, len(found)))
        elif piece in ")]" and opened and opened[-1][0] == ("(" if piece == ")" else "["):
            _close(found, *opened.pop())
        else:
            found.append((piece[1:] if piece[0] == "\\" and len(piece) > 1 else piece, 1.0))
    while opened:
        bracket, start = opened.pop()
        _scale(found, start, ROUND if bracket == "(" else SQUARE)
    return _joined(found)


def plain_text(caption: str) -> str:
    """A caption without its weights, so that its tokens are those of its stretches, one after the other."""
    parts = parts_of(caption)
    return parts[0][0] if len(parts) == 1 else " ".join(text.strip() for text, _ in parts if text.strip())


def token_weights(caption: str) -> list[float]:
    """The weight of each token of :func:`plain_text`."""
    return [weight for text, weight in parts_of(caption) for _ in tokenise(text)]


def _close(found: list[Part], bracket: str, start: int) -> None:
    """Weigh what stands between two brackets; a number behind the last colon of round ones is the weight."""
    number = _NUMBER.fullmatch(found[-1][0]) if bracket == "(" and len(found) > start else None
    if number is None:
        _scale(found, start, ROUND if bracket == "(" else SQUARE)
        return
    found[-1] = (number[1], found[-1][1])
    _scale(found, start, float(number[2]))


def _scale(found: list[Part], start: int, factor: float) -> None:
    found[start:] = [(text, weight * factor) for text, weight in found[start:]]


def _joined(found: Sequence[Part]) -> list[Part]:
    """Neighbours of equal weight together; never empty."""
    joined: list[Part] = []
    for text, weight in found:
        if joined and joined[-1][1] == weight:
            joined[-1] = (joined[-1][0] + text, weight)
        elif text:
            joined.append((text, weight))
    return joined or [("", 1.0)]
