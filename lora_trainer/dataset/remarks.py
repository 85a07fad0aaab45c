"""One line for each way in which the captions of a folder aren't what the user may think."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lora_trainer.config import CaptionConfig
from lora_trainer.config.groups import TOKEN_LENGTHS
from lora_trainer.dataset.items import Folder, ImageItem
from lora_trainer.dataset.layout import names
from lora_trainer.dataset.texts import USUAL_ENDINGS, Caption
from lora_trainer.tokens import longer_than

Used = Sequence[tuple[ImageItem, Caption]]


def caption_remarks(folder: Folder, used: Used, ending: str, config: CaptionConfig) -> Iterator[str]:
    """All of them; ``ending`` is the one of caption files that is looked for first."""
    yield from _without_text(folder, used, ending)
    yield from _without_trigger(folder, used, config)
    yield from _cut_off(folder, used, config)
    other = sorted({text.ending for _, text in used if text.ending and text.ending != ending})
    if other:
        yield f"{folder.name}: captions come from {' and '.join(other)} files where there is no {ending} file."
    several = [item.path.name for item, text in used if len(text.lines) > 1]
    if several and not config.enable_wildcard:
        yield (
            f"{folder.name}: {len(several)} captions have several lines; only the first is used ({names(several)}). "
            "Switch enable_wildcard on to use a random line each time."
        )
    foreign = [item.path.name for item, text in used if not text.known_encoding]
    if foreign:
        yield (
            f"{folder.name}: captions of {names(foreign)} aren't UTF-8 and were read as Windows-1252; "
            "save them as UTF-8 if they look wrong."
        )


def _without_text(folder: Folder, used: Used, ending: str) -> Iterator[str]:
    """Images for which the folder's words stand in: usual for regularisation images."""
    if folder.is_reg and folder.trigger:
        return
    instead = f'the folder\'s words "{folder.trigger}"' if folder.trigger else "an empty caption"
    if used and ending not in USUAL_ENDINGS and all(text.source == "missing" for _, text in used):
        yield f"{folder.name}: no image has a {ending} file, so all are trained with {instead}."
        return
    for source, what in (("missing", "without a caption file"), ("empty", "with an empty caption file")):
        who = [item.path.name for item, text in used if text.source == source]
        if who:
            subject = f"1 image {what} is" if len(who) == 1 else f"{len(who)} images {what} are"
            yield (
                f"{folder.name}: {subject} trained with {instead} ({names(who)}); "
                f"write {Path(who[0]).stem}{ending} to change that."
            )


def _without_trigger(folder: Folder, used: Used, config: CaptionConfig) -> Iterator[str]:
    """Words that no caption has are never trained, though the LoRA's card names them as its trigger."""
    if folder.is_reg or not folder.trigger:
        return
    written = [(item, text) for item, text in used if text.source == "file"]
    word = _plain(folder.trigger)
    without = [
        item.path.name
        for item, text in written
        if not any(word in _plain(line) for line in _whole_lines(text.lines, config))
    ]
    if without:
        some = "its only caption doesn't" if len(written) == 1 else f"{len(without)} of {len(written)} captions don't"
        yield (
            f'{folder.name}: {some} contain the folder\'s words "{folder.trigger}" '
            f"({names(without)}), so a prompt with these words may not bring up what was learned; write them into "
            f'the captions, or set caption_prefix to "{folder.trigger}," to put them before each one.'
        )


def _cut_off(folder: Folder, used: Used, config: CaptionConfig) -> Iterator[str]:
    """Captions of which the text encoder doesn't see the end."""
    limit = config.max_token_length
    long = [(item.path.name, line) for item, text in used for line in _whole_lines(text.lines, config)
            if longer_than(line, limit)]  # fmt: skip
    if long:
        larger = [length for length in TOKEN_LENGTHS if length > limit]
        enough = [length for length in larger if not any(longer_than(line, length) for _, line in long)]
        remedy = f"set max_token_length to {(enough or larger)[0 if enough else -1]}" if larger else "shorten them"
        remedy += " and shorten them" if larger and not enough else ""
        subject = "1 caption is" if len(long) == 1 else f"{len(long)} captions are"
        yield (
            f"{folder.name}: {subject} longer than {limit} tokens ({names([name for name, _ in long])}); what "
            f"comes after that isn't trained: {remedy}."
        )


def _whole_lines(lines: Sequence[str], config: CaptionConfig) -> list[str]:
    """The lines that may be used, with prefix and suffix."""
    candidates = lines if config.enable_wildcard else lines[:1]
    return [
        " ".join(part for part in (config.caption_prefix, line, config.caption_suffix) if part) for line in candidates
    ]


def _plain(text: str) -> str:
    return " ".join(text.casefold().replace("_", " ").split())
