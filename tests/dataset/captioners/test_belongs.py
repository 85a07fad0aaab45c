"""What belongs to a subject is left out of its captions; everything else stays."""

from __future__ import annotations

import pytest

from lora_trainer.dataset.belongs import RULES, left_out
from lora_trainer.errors import ConfigError


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        ("person", "zwx, a woman with long red hair in a park", "zwx, a woman in a park"),
        ("person", "a blonde woman with blue eyes and a hat, smiling", "a woman with a hat, smiling"),
        ("person", "a woman with a hat and blue eyes sitting on a bench", "a woman with a hat sitting on a bench"),
        ("person", "an auburn-haired man with a beard and glasses", "a man with glasses"),
        ("person", "a woman with long, curly red hair in a park", "a woman, in a park"),
        ("person", "a red haired girl with her eyes closed", "a girl with her eyes closed"),
        ("person", "a woman brushing her hair", "a woman brushing her hair"),
        ("person", "zwx  , a red coat", "zwx  , a red coat"),
        ("character", "1girl, long_hair, Blue eyes, hair ornament, closed eyes, cat ears, smile, hair ribbon",
         "1girl, hair ornament, closed eyes, smile, hair ribbon"),
        ("style", "zwx, a watercolor painting of mountains", "zwx, mountains"),
        ("style", "a cat in the style of van gogh", "a cat"), ("style", "a woman in watercolor", "a woman"),
        ("style", "1girl, monochrome, watercolor (medium), smile, anime style", "1girl, smile"),
        ("style", "a man taking a picture of a dog", "a man taking a picture of a dog"),
    ],
)  # fmt: skip
def test_left_out(kind: str, before: str, after: str) -> None:
    assert left_out(before, kind) == after
    assert left_out(after, kind) == after, "nothing more the second time"


def test_each_rule_is_told_and_other_kinds_are_refused() -> None:
    assert {kind for kind in ("person", "character", "style") if left_out("a cat", kind)} == set(RULES)
    with pytest.raises(ConfigError, match="can't be told from words"):
        left_out("a red bottle", "object")
