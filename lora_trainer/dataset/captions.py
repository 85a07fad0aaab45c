"""From the lines of a caption file to the text of one use, in sd-scripts' order of steps; pure functions."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from lora_trainer.config import CaptionConfig

_WILDCARD = re.compile(r"\{([^{}]+)\}")
_OPEN, _CLOSE = "\ue000", "\ue001"  # stand for escaped braces; private use, so no caption holds them


def render(
    lines: Sequence[str],
    config: CaptionConfig,
    rng: random.Random,
    epoch: int = 1,
    step: int = 0,
    total_steps: int = 0,
) -> str:
    """The caption of one use of an image.

    In this order: prefix and suffix, dropout of the whole caption, wildcards, tags (split, warm-up, shuffle, tag
    dropout, join), secondary separator. Prefix and suffix are put around every line of a file, so that each line that
    a wildcard may pick has them.

    Args:
        lines: the caption file's lines; only the first counts unless ``enable_wildcard`` is on.
        rng: decides all that is random; equal state gives equal text.
        epoch: 1 in the first pass.
        step: optimiser steps done so far, and ``total_steps`` of the run; for token warm-up only.
    """
    if _is_dropped(config, rng, epoch):
        return ""
    candidates = list(lines if config.enable_wildcard else lines[:1])
    line = rng.choice(candidates) if candidates else ""
    text = " ".join(part for part in (config.caption_prefix, line, config.caption_suffix) if part)
    if config.enable_wildcard:
        text = _resolve_wildcards(text, rng)
    text = _vary_tags(text, config, rng, step, total_steps)
    if config.secondary_separator:
        text = text.replace(config.secondary_separator, config.caption_separator)
    return text


def is_varied(config: CaptionConfig) -> bool:
    """Whether two uses of an image may get different texts."""
    return bool(
        config.caption_dropout_rate
        or config.caption_dropout_every_n_epochs
        or config.enable_wildcard
        or config.shuffle_caption
        or config.token_warmup_step
        or config.caption_tag_dropout_rate
    )


def tag_frequency(captions: Iterable[str]) -> dict[str, int]:
    """How often each tag (lower case, split at commas) occurs; for the file's ``ss_tag_frequency``."""
    tags = (tag.strip().lower() for caption in captions for tag in caption.split(","))
    return dict(Counter(tag for tag in tags if tag))


def _is_dropped(config: CaptionConfig, rng: random.Random, epoch: int) -> bool:
    by_chance = config.caption_dropout_rate > 0 and rng.random() < config.caption_dropout_rate
    every = config.caption_dropout_every_n_epochs
    return by_chance or (every > 0 and epoch % every == 0)


def _resolve_wildcards(text: str, rng: random.Random) -> str:
    """Replace each ``{a|b|c}`` by one of its choices; ``{{`` and ``}}`` are literal braces."""
    text = text.replace("{{", _OPEN).replace("}}", _CLOSE)
    text = _WILDCARD.sub(lambda match: rng.choice(match.group(1).split("|")), text)
    return text.replace(_OPEN, "{").replace(_CLOSE, "}")


def _vary_tags(text: str, config: CaptionConfig, rng: random.Random, step: int, total_steps: int) -> str:
    """Warm-up, shuffle and dropout of the tags that aren't kept in place; joined with ", " as sd-scripts does."""
    varied = config.shuffle_caption or config.token_warmup_step > 0 or config.caption_tag_dropout_rate > 0
    marked = bool(config.keep_tokens_separator) and config.keep_tokens_separator in text
    if not varied and not marked:  # the mark itself never reaches the text encoder
        return text
    fixed, flexible, suffix = _split(text, config)
    flexible = flexible[: _warm_count(len(flexible), config, step, total_steps)]
    if config.shuffle_caption:
        rng.shuffle(flexible)
    if config.caption_tag_dropout_rate > 0:
        flexible = [tag for tag in flexible if rng.random() >= config.caption_tag_dropout_rate]
    return ", ".join(fixed + flexible + suffix)


def _split(text: str, config: CaptionConfig) -> tuple[list[str], list[str], list[str]]:
    """Tags that stay in front, tags that vary, tags that stay at the end."""

    def tags(part: str) -> list[str]:
        return [tag.strip() for tag in part.split(config.caption_separator or ",") if tag.strip()]

    mark = config.keep_tokens_separator
    if mark and mark in text:
        parts = [*text.split(mark, 2), ""]
        return tags(parts[0]), tags(parts[1]), tags(parts[2])
    every = tags(text)
    return every[: config.keep_tokens], every[config.keep_tokens :], []


def _warm_count(tags: int, config: CaptionConfig, step: int, total_steps: int) -> int:
    """How many flexible tags are used: from ``token_warmup_min`` to all over ``token_warmup_step`` steps."""
    warmup = config.token_warmup_step
    steps = math.floor(warmup * total_steps) if warmup < 1 else warmup
    if not steps or step >= steps:
        return tags
    return max(0, math.floor(step * (tags - config.token_warmup_min) / steps) + config.token_warmup_min)
