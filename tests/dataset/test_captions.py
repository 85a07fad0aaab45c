"""Captions of one use: every option, and the order in which they apply."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from lora_trainer.config import CaptionConfig
from lora_trainer.dataset.captions import is_varied, render, tag_frequency


def text(
    line: str | tuple[str, ...], seed: int = 0, epoch: int = 1, step: int = 0, total: int = 0, **options: Any
) -> str:
    lines = (line,) if isinstance(line, str) else line
    return render(lines, CaptionConfig(**options), random.Random(seed), epoch, step, total)


def texts(line: str | tuple[str, ...], uses: int = 400, **options: Any) -> list[str]:
    return [text(line, seed, **options) for seed in range(uses)]


def test_plain_caption_is_literal() -> None:
    assert text("a,  {b|c} (d:1.2) , ||| e") == "a,  {b|c} (d:1.2) , ||| e"


def test_no_caption() -> None:
    assert text(()) == ""
    assert text((), caption_prefix="p") == "p"


def test_first_line_unless_wildcards() -> None:
    assert set(texts(("one", "two", "three"))) == {"one"}
    counts = Counter(texts(("one", "two", "three"), enable_wildcard=True))
    assert set(counts) == {"one", "two", "three"}
    assert min(counts.values()) > 90


def test_prefix_and_suffix_come_first_and_take_part_in_shuffling() -> None:
    assert text("a, b", caption_prefix="pre,", caption_suffix=", suf") == "pre, a, b , suf"
    orders = set(texts("a, b", caption_prefix="pre,", caption_suffix=", suf", shuffle_caption=True))
    assert len(orders) == 24
    assert {order.split(", ")[0] for order in orders} == {"pre", "a", "b", "suf"}


def test_prefix_is_put_before_every_line() -> None:
    assert set(texts(("one", "two"), enable_wildcard=True, caption_prefix="x")) == {"x one", "x two"}


def test_whole_caption_dropout_drops_the_prefix_too() -> None:
    dropped = texts("a", uses=2000, caption_dropout_rate=0.25, caption_prefix="pre").count("")
    assert 430 < dropped < 570
    assert set(texts("a", caption_dropout_rate=1.0)) == {""}


def test_every_n_epochs_from_one() -> None:
    assert render(("a",), CaptionConfig(caption_dropout_every_n_epochs=2), random.Random(0)) == "a"  # the first
    seen = [text("a", epoch=epoch, caption_dropout_every_n_epochs=3) for epoch in range(1, 8)]
    assert seen == ["a", "a", "", "a", "a", "", "a"]


def test_wildcards_and_escapes() -> None:
    assert set(texts("a {red|blue} {x}", enable_wildcard=True)) == {"a red x", "a blue x"}
    assert set(texts("{{red|blue}}", enable_wildcard=True)) == {"{red|blue}"}


def test_wildcard_is_resolved_before_the_tags_are_split() -> None:
    assert set(texts("{a, b|c}", enable_wildcard=True, shuffle_caption=True)) == {"a, b", "b, a", "c"}


def test_shuffle_keeps_every_tag_and_reaches_every_order() -> None:
    orders = set(texts("a, b,c ,d", shuffle_caption=True))
    assert len(orders) == 24
    assert all(sorted(order.split(", ")) == ["a", "b", "c", "d"] for order in orders)


def test_keep_tokens() -> None:
    orders = set(texts("t1, t2, a, b", shuffle_caption=True, keep_tokens=2))
    assert orders == {"t1, t2, a, b", "t1, t2, b, a"}


def test_keep_tokens_separator_fixes_both_ends_and_wins() -> None:
    orders = set(texts("f1, f2 ||| a, b ||| s1, s2", shuffle_caption=True, keep_tokens_separator="|||", keep_tokens=3))
    assert orders == {"f1, f2, a, b, s1, s2", "f1, f2, b, a, s1, s2"}
    assert set(texts("f ||| a, b", shuffle_caption=True, keep_tokens_separator="|||")) == {"f, a, b", "f, b, a"}
    without = set(texts("a, b, c", shuffle_caption=True, keep_tokens_separator="|||", keep_tokens=1))
    assert without == {"a, b, c", "a, c, b"}


def test_the_separator_never_reaches_the_text_encoder() -> None:
    assert text("f ||| a, b", keep_tokens_separator="|||") == "f, a, b"


def test_another_separator() -> None:
    assert text("a, b; c", shuffle_caption=True, keep_tokens=2, caption_separator=";") == "a, b, c"
    assert set(texts("a, b; c", shuffle_caption=True, caption_separator=";")) == {"a, b, c", "c, a, b"}


def test_tag_dropout_spares_the_fixed_tags() -> None:
    results = texts("t, a, b ||| end", uses=2000, caption_tag_dropout_rate=0.3, keep_tokens=1)
    assert all(result.startswith("t") for result in results)
    share = sum("a" in result.split(", ") for result in results) / len(results)
    assert share == pytest.approx(0.7, abs=0.04)
    assert text("t, a, b", caption_tag_dropout_rate=1.0, keep_tokens=1) == "t"
    assert text("t ||| a ||| s", caption_tag_dropout_rate=1.0, keep_tokens_separator="|||") == "t, s"


def test_tag_dropout_keeps_the_order_without_shuffle() -> None:
    for result in texts("a, b, c, d", caption_tag_dropout_rate=0.5):
        assert result.split(", ") == sorted(result.split(", "))


def test_token_warmup_grows_from_the_minimum_to_all() -> None:
    tags = "k, " + ", ".join(f"t{n}" for n in range(10))
    counts = [
        len(text(tags, step=step, token_warmup_step=8, token_warmup_min=2, keep_tokens=1).split(", ")) - 1
        for step in range(10)
    ]
    assert counts == [2, 3, 4, 5, 6, 7, 8, 9, 10, 10]  # floor(step * (10 - 2) / 8) + 2, then all


def test_token_warmup_as_share_of_the_run() -> None:
    tags = "a, b, c, d, e"
    options = {"token_warmup_step": 0.5, "token_warmup_min": 1}
    assert text(tags, step=0, total=100, **options) == "a"
    assert text(tags, step=25, total=100, **options) == "a, b, c"  # floor(25 * 4 / 50) + 1
    assert text(tags, step=50, total=100, **options) == tags


def test_warmup_takes_the_first_tags_before_the_shuffle() -> None:
    orders = set(texts("a, b, c, d", step=1, token_warmup_step=3, token_warmup_min=1, shuffle_caption=True))
    assert orders == {"a, b", "b, a"}


def test_warmup_with_fewer_tags_than_the_minimum_uses_all() -> None:
    assert text("a, b", token_warmup_step=10, token_warmup_min=5) == "a, b"


def test_secondary_separator_keeps_groups_together() -> None:
    orders = set(texts("a;;;b, c", shuffle_caption=True, secondary_separator=";;;"))
    assert orders == {"a,b, c", "c, a,b"}
    assert text("a;;;b", secondary_separator=";;;") == "a,b"


def test_equal_generators_give_equal_texts() -> None:
    options: dict[str, Any] = {"shuffle_caption": True, "caption_tag_dropout_rate": 0.3, "caption_dropout_rate": 0.1}
    assert texts("a, b, c, d, e", uses=50, **options) == texts("a, b, c, d, e", uses=50, **options)


@pytest.mark.parametrize(
    "option",
    [
        {"caption_dropout_rate": 0.1},
        {"caption_dropout_every_n_epochs": 2},
        {"enable_wildcard": True},
        {"shuffle_caption": True},
        {"token_warmup_step": 0.2},
        {"caption_tag_dropout_rate": 0.1},
    ],
)
def test_what_makes_captions_vary(option: dict[str, Any]) -> None:
    assert is_varied(CaptionConfig(**option))
    uses = {text(("a, b, c", "d, e"), seed, epoch, seed, 40, **option) for seed in range(40) for epoch in (1, 2)}
    assert len(uses) > 1


def test_what_does_not_make_captions_vary() -> None:
    options: dict[str, Any] = {
        "caption_prefix": "p", "caption_suffix": "s", "keep_tokens": 2, "keep_tokens_separator": "|||",
        "secondary_separator": ";;", "token_warmup_min": 3,
    }  # fmt: skip
    assert not is_varied(CaptionConfig(**options))
    assert (
        len({text(("a ||| b;;c", "d"), seed, epoch, seed, 40, **options) for seed in range(40) for epoch in (1, 2)})
        == 1
    )


def test_tag_frequency_counts_images_in_lower_case() -> None:
    assert tag_frequency(["A cat, red", "a cat , , blue", ""]) == {"a cat": 2, "red": 1, "blue": 1}
