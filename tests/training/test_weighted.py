"""Weighted captions multiply the vectors of their tokens, and only these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from lora_trainer.errors import ConfigError
from lora_trainer.hosts.base import Conditioning
from lora_trainer.training.weighted import encode_weighted


class Ones:
    """Gives vectors of ones, and remembers what it was asked."""

    def __init__(self, row: int) -> None:
        self.row, self.asked = row, list[str]()

    def encode_captions(self, captions: Sequence[str], length: int, clip_skip: int) -> Conditioning:
        self.asked += captions
        places = length + 2 if self.row == 75 else length // 75 * 77
        return Conditioning(torch.ones(len(captions), places, 3), torch.ones(len(captions), 5))


def test_each_vector_has_the_weight_of_its_token() -> None:
    model: Any = Ones(75)
    long = f"{'red ' * 80}(blue:3)"
    made = encode_weighted(model, ["a (cat:1.5) [dog]", long, "plain (cat:0)"], 150, 1)
    assert model.asked == ["a cat dog", f"{('red ' * 80).strip()} blue", "plain cat"]
    first, second, third = made.context[..., 0]
    assert first[:5].tolist() == pytest.approx([1, 1, 1.5, 1 / 1.1, 1]) and bool((first[5:] == 1).all())
    assert float(second[81]) == 3 and float(second.sum()) == 152 + 2
    assert float(third[2]) == 0 and torch.equal(made.pooled, torch.ones(3, 5))  # type: ignore[arg-type]


def test_a_webui_cuts_long_captions_itself() -> None:
    model: Any = Ones(77)
    assert float(encode_weighted(model, ["(cat:2)"], 75, 1).context[0, 1, 0]) == 2
    with pytest.raises(ConfigError, match="weighted_captions needs max_token_length 75"):
        encode_weighted(model, ["(cat:2)"], 150, 1)
