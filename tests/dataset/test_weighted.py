"""Weights in captions are read as a WebUI reads them, and every token has the weight of its stretch."""

from __future__ import annotations

import pytest

from lora_trainer.dataset.weighted import parts_of, plain_text, token_weights
from lora_trainer.tokens import tokenise


@pytest.mark.parametrize(
    ("caption", "parts"),
    [  # what AUTOMATIC1111's prompt_parser.parse_prompt_attention gives
        ("a cat", [("a cat", 1)]),
        ("", [("", 1)]),
        ("(a)", [("a", 1.1)]),
        ("[a]", [("a", 1 / 1.1)]),
        ("a (red:1.3), cat", [("a ", 1), ("red", 1.3), (", cat", 1)]),
        ("a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
         [("a ", 1), ("house", 1.573), (" ", 1.1), ("on", 1), (" a ", 1.1), ("hill", 0.55), (", sun, ", 1.1),
          ("sky", 1.4641), (".", 1.1)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        (r"\(literal\] and \\ (x: 2)", [("(literal] and \\ ", 1), ("x", 2)]),
        ("(a:b)", [("a:b", 1.1)]),
        ("closed) twice]", [("closed) twice]", 1)]),
    ],
)  # fmt: skip
def test_stretches_and_their_weights(caption: str, parts: list[tuple[str, float]]) -> None:
    found = parts_of(caption)
    assert [text for text, _ in found] == [text for text, _ in parts]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in parts])


def test_every_token_has_the_weight_of_its_stretch() -> None:
    caption = "a (very big:1.5) cat, [un]happy"
    assert plain_text(caption) == "a very big cat, un happy" and plain_text("just text ") == "just text "
    weights = token_weights(caption)
    assert len(weights) == len(tokenise(plain_text(caption)))
    assert weights == pytest.approx([1, 1.5, 1.5, 1, 1, 1 / 1.1, 1])
