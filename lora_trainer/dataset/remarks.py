"""The ways in which the captions of a folder aren't what the user may think."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lora_trainer.config import CaptionConfig
from lora_trainer.config.groups import TOKEN_LENGTHS
from lora_trainer.dataset.findings import Finding, Severity, names
from lora_trainer.dataset.items import Folder, ImageItem
from lora_trainer.dataset.texts import USUAL_ENDINGS, Caption
from lora_trainer.errors import shortened
from lora_trainer.tokens import beyond, longer_than

Used = Sequence[tuple[ImageItem, Caption]]


def caption_remarks(folder: Folder, used: Used, ending: str, config: CaptionConfig) -> Iterator[Finding]:
    """All of them; ``ending`` is the one of caption files that is looked for first."""
    yield from _without_text(folder, used, ending)
    yield from _without_trigger(folder, used, config)
    yield from _cut_off(folder, used, config)
    yield from _shared(folder, used)
    other = sorted({text.ending for _, text in used if text.ending and text.ending != ending})
    if other:
        where = f"{folder.name}: captions come from {' and '.join(other)} files where there is no {ending} file"
        yield Finding("caption_endings", "info", where)
    several = [item.path for item, text in used if len(text.lines) > 1]
    if several and not config.enable_wildcard:
        lines = f"{folder.name}: {len(several)} captions have several lines; only the first is used ({_few(several)})"
        remedy = "switch enable_wildcard on to use a random line each time"
        yield Finding("caption_lines", "info", lines, remedy, tuple(several))
    foreign = [item.path for item, text in used if not text.known_encoding]
    if foreign:
        read = f"{folder.name}: captions of {_few(foreign)} aren't UTF-8 and were read as Windows-1252"
        yield Finding("caption_encoding", "info", read, "save them as UTF-8 if they look wrong", tuple(foreign))


def _shared(folder: Folder, used: Used) -> Iterator[Finding]:
    """One caption file for ``a.png`` and ``a.jpg``."""
    owners: dict[str, list[Path]] = {}
    for item, text in used:
        if text.source == "file":
            owners.setdefault(item.path.stem, []).append(item.path)
    both = [paths for paths in owners.values() if len(paths) > 1]
    if both:
        some = "2 images share" if len(both) == 1 and len(both[0]) == 2 else f"{sum(map(len, both))} images share"
        reason = f"{folder.name}: {some} a caption file with another one of the same name ({_few(both[0])})"
        remedy = "rename one of them, with a caption of its own, unless it is right for both"
        yield Finding("caption_shared", "info", reason, remedy, tuple(path for paths in both for path in paths))


def _without_text(folder: Folder, used: Used, ending: str) -> Iterator[Finding]:
    """Images for which the folder's words stand in: usual for regularisation images."""
    if folder.is_reg and folder.trigger:
        return
    instead = f'the folder\'s words "{folder.trigger}"' if folder.trigger else "an empty caption"
    if used and ending not in USUAL_ENDINGS and all(text.source == "missing" for _, text in used):
        none = f"{folder.name}: no image has a {ending} file, so all are trained with {instead}"
        yield Finding("captions_missing", "info", none, files=tuple(item.path for item, _ in used))
        return
    for source, what in (("missing", "without a caption file"), ("empty", "with an empty caption file")):
        who = [item.path for item, text in used if text.source == source]
        if who:
            subject = f"1 image {what} is" if len(who) == 1 else f"{len(who)} images {what} are"
            reason = f"{folder.name}: {subject} trained with {instead} ({_few(who)})"
            remedy = f"write {who[0].stem}{ending} to change that"
            yield Finding(f"captions_{source}", "warning", reason, remedy, tuple(who))


def _without_trigger(folder: Folder, used: Used, config: CaptionConfig) -> Iterator[Finding]:
    """Words that no caption has are never trained, though the LoRA's card names them as its trigger."""
    if folder.is_reg or not folder.trigger:
        return
    written = [(item.path, _whole_lines(text.lines, config)) for item, text in used if text.source == "file"]
    word = plain(folder.trigger)
    without = [path for path, lines in written if not any(word in plain(line) for line in lines)]
    if without:
        some = "its only caption doesn't" if len(written) == 1 else f"{len(without)} of {len(written)} captions don't"
        severity: Severity = "error" if len(without) == len(written) == len(used) else "warning"
        yield Finding(
            "trigger_missing", severity,
            f'{folder.name}: {some} contain the folder\'s words "{folder.trigger}" ({_few(without)}), so a prompt with '
            "these words may not bring up what was learned",
            "write them into the captions, or set caption_prefix to "
            f'"{folder.trigger}," to put them before each one', tuple(without),
        )  # fmt: skip
    late = [path for path, lines in written if path not in without and not _begins(lines, word)]
    if late:
        some = "1 caption has" if len(late) == 1 else f"{len(late)} captions have"
        reason = f'{folder.name}: {some} "{folder.trigger}" somewhere inside ({_few(late)})'
        yield Finding("trigger_not_first", "info", reason, "begin each caption with it", tuple(late))


def _begins(lines: Sequence[str], word: str) -> bool:
    return all(plain(line).startswith(word) for line in lines if word in plain(line))


def _cut_off(folder: Folder, used: Used, config: CaptionConfig) -> Iterator[Finding]:
    """Captions of which the text encoder doesn't see the end."""
    limit = config.max_token_length
    long = [(item.path, line) for item, text in used for line in _whole_lines(text.lines, config)
            if longer_than(line, limit)]  # fmt: skip
    if long:
        larger = [length for length in TOKEN_LENGTHS if length > limit]
        enough = [length for length in larger if not any(longer_than(line, length) for _, line in long)]
        remedy = f"set max_token_length to {(enough or larger)[0 if enough else -1]}" if larger else "shorten them"
        remedy += " and shorten them" if larger and not enough else ""
        subject = "1 caption is" if len(long) == 1 else f"{len(long)} captions are"
        paths = tuple(path for path, _ in long)
        lost = shortened(beyond(long[0][1], limit), 60)
        yield Finding(
            "caption_overlong", "warning",
            f"{folder.name}: {subject} longer than {limit} tokens ({_few(paths)}); what comes after that, such as "
            f'"{lost}", isn\'t trained', remedy, paths,
        )  # fmt: skip


def _few(paths: Sequence[Path]) -> str:
    return names([path.name for path in paths])


def _whole_lines(lines: Sequence[str], config: CaptionConfig) -> list[str]:
    """The lines that may be used, with prefix and suffix."""
    candidates = lines if config.enable_wildcard else lines[:1]
    return [
        " ".join(part for part in (config.caption_prefix, line, config.caption_suffix) if part) for line in candidates
    ]


def plain(text: str) -> str:
    """A text as words are compared: case, spaces and _ don't count."""
    return " ".join(text.casefold().replace("_", " ").split())
