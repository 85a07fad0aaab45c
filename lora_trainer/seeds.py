"""Randomness as a function of what it is for, so that a resumed run equals an uninterrupted one.

Nothing in this package uses or seeds a global generator: the host's own generation must not be disturbed, and state
that lives in a generator would have to be saved. A key such as ``(seed, "noise", uid)`` is enough, where ``uid`` says
which use of which image it is; it holds no step, so neither batches nor breaks change what is drawn.
"""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(*key: int | str) -> int:
    """Mix a key into a 63-bit seed; equal on every platform and Python version."""
    text = "\x1f".join(str(part) for part in key)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def python_rng(*key: int | str) -> random.Random:
    """A Python generator for captions, shuffles and augmentation."""
    return random.Random(derive(*key))


def torch_generator(*key: int | str) -> torch.Generator:
    """A CPU generator: noise is drawn on the CPU and moved, so it is the same on every device."""
    import torch

    return torch.Generator("cpu").manual_seed(derive(*key))
