"""The captions: the very texts that reach the text encoder at every step."""

from __future__ import annotations

from collections.abc import Callable

from support.options.run import LOSS, TEXT, UPDATE, Case, Check, Outcome

SHUFFLED = {"shuffle_caption": True}


def each(of: Callable[[str, int, str], bool]) -> Check:
    """``of(text, step, plain text)`` holds for every text; images are told apart by what the other run read there."""

    def check(base: Outcome, changed: Outcome) -> None:
        plain = base.world.run().model.captions_encoded
        texts = changed.model.captions_encoded
        assert len(texts) == len(plain) == 4
        assert all(of(text, index // 2, own) for index, (text, own) in enumerate(zip(texts, plain, strict=True))), texts

    return check


def tags(text: str) -> list[str]:
    return text.split(", ")


def other_file(base: Outcome, changed: Outcome) -> None:
    assert sorted(changed.model.captions_encoded) == ["other words 0"] * 2 + ["other words 1"] * 2


def in_any_order(base: Outcome, changed: Outcome) -> None:
    """The same tags, in an order that isn't that of the file and changes between the epochs."""
    each(lambda text, step, own: sorted(tags(text)) == sorted(tags(own)))(base, changed)
    texts = changed.model.captions_encoded
    assert len(set(texts)) == 4 and not set(texts) & set(base.model.captions_encoded)


def one_line_and_one_choice(text: str, step: int, own: str) -> bool:
    first, second = ("left", "right") if "calm" in own else ("up", "down")
    lines = [own[: own.index("{")] + word + own[own.index("}") + 1 :] for word in (first, second)]
    return text in (*lines, "zork, second line" if "calm" in own else "zork, other line")


def split_elsewhere(text: str, step: int, own: str) -> bool:
    before, _, after = own.partition(";;;")
    return text in (f"{before}, {after}", f"{after}, {before}")


def reads_twice_as_much(base: Outcome, changed: Outcome) -> None:
    """The model at hand reads 6 tokens where others read 75, beside start, end and the trigger word."""
    assert changed.model.calls[0].context.shape[1] == base.model.calls[0].context.shape[1] + 6


CASES: dict[str, Case] = {
    "caption_extension": Case(".cap", TEXT, check=other_file),
    "caption_prefix": Case("once", TEXT, check=each(lambda text, step, own: text == f"once {own}")),
    "caption_suffix": Case("then", TEXT, check=each(lambda text, step, own: text == f"{own} then")),
    "caption_separator": Case(";;;", TEXT, SHUFFLED, each(split_elsewhere), idle=[{}]),
    "secondary_separator": Case(";;;", TEXT, check=each(lambda text, step, own: text == own.replace(";;;", ","))),
    "shuffle_caption": Case(True, TEXT, check=in_any_order),
    "keep_tokens": Case(
        3, TEXT, SHUFFLED, each(lambda text, step, own: tags(text)[:3] == tags(own)[:3]),
        idle=[{}, {"keep_tokens_separator": "|||", **SHUFFLED}]),
    "keep_tokens_separator": Case(
        "|||", TEXT, SHUFFLED, each(lambda text, step, own: text.startswith(own[:10] + ", ") and "|||" not in text)),
    "caption_dropout_rate": Case(1, TEXT, check=each(lambda text, step, own: text == "")),
    "caption_dropout_every_n_epochs": Case(
        2, {"texts"} | UPDATE, check=each(lambda text, step, own: text == ("" if step == 1 else own))),
    "caption_tag_dropout_rate": Case(
        1, TEXT, {"keep_tokens": 1}, each(lambda text, step, own: text == "zork")),
    "token_warmup_min": Case(
        3, TEXT, {"token_warmup_step": 2},
        each(lambda text, step, own: tags(text) == tags(own)[: (3, 4)[step]]), idle=[{}]),
    "token_warmup_step": Case(2, TEXT, check=each(lambda text, step, own: tags(text) == tags(own)[: (1, 3)[step]])),
    "enable_wildcard": Case(True, TEXT, check=each(one_line_and_one_choice)),
    "weighted_captions": Case(
        True, TEXT, {"caption_prefix": "(once:2)"}, each(lambda text, step, own: text == f"once {own}"), idle=[{}]),
    "max_token_length": Case(150, {"context", "memory"} | LOSS, check=reads_twice_as_much),
    "clip_skip": Case(2, {"context"} | LOSS),
}  # fmt: skip
