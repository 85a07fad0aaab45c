"""Changes of a caption's text; pure functions. A caption may have several lines, and each line is a row of tags."""

from __future__ import annotations

from collections.abc import Callable

from lora_trainer.dataset.belongs import left_out
from lora_trainer.dataset.remarks import plain
from lora_trainer.errors import ConfigError, quoted

SEPARATOR = ", "


def tags_of(line: str) -> list[str]:
    """The tags of a line, as they are written."""
    return [tag.strip() for tag in line.split(",") if tag.strip()]


def with_prefix(line: str, words: str, _: str = "") -> str:
    """The words before a line, unless it begins with them."""
    if plain(line).startswith(plain(words)):
        return line
    return SEPARATOR.join(part for part in (words.strip(" ,"), line) if part)


def with_appended(line: str, words: str, _: str = "") -> str:
    """The words at the end of a line, unless they are among its tags."""
    if plain(words) in map(plain, tags_of(line)):
        return line
    return SEPARATOR.join(part for part in (line.rstrip(" ,"), words.strip(" ,")) if part)


def replaced_words(line: str, words: str, instead: str) -> str:
    """Every occurrence of the words replaced; no empty tag is left behind."""
    if words not in line:
        return line
    changed = line.replace(words, instead)
    return changed if instead.strip() else SEPARATOR.join(tags_of(changed))


def without_tag(line: str, words: str, _: str = "") -> str:
    """Without a tag, however its case, spaces and _ are written."""
    kept = [tag for tag in tags_of(line) if plain(tag) != plain(words)]
    return line if len(kept) == len(tags_of(line)) else SEPARATOR.join(kept)


def with_first(line: str, words: str, _: str = "") -> str:
    """A tag brought to the front, where the line has it."""
    tags = tags_of(line)
    ours = [tag for tag in tags if plain(tag) == plain(words)]
    return SEPARATOR.join([ours[0], *(tag for tag in tags if plain(tag) != plain(words))]) if ours else line


EDITS: dict[str, Callable[[str, str, str], str]] = {
    "prefix": with_prefix, "append": with_appended, "replace": replaced_words, "remove": without_tag,
    "first": with_first, "leave_out": left_out,
}  # fmt: skip
SAID = {
    "prefix": "{words} before every caption", "append": "{words} at the end of every caption",
    "replace": "{words} replaced by {instead}", "remove": "{words} removed", "first": "{words} brought to the front",
    "set": "a caption edited", "leave_out": "what belongs to the {kind} left out", "describe": "automatic captions",
    "metadata": "captions of a metadata file",
}  # fmt: skip


def edited(text: str, edit: str, words: str, instead: str = "") -> str:
    """The text after an edit of each of its lines.

    Raises:
        ConfigError: if there is no such edit, or nothing to do it with.
    """
    if edit not in EDITS:
        raise ConfigError(f"The edit can't be {quoted(edit)}; give one of {', '.join(EDITS)}.")
    if not words.strip():
        raise ConfigError("Which words? Give those that are to be added, replaced or removed.")
    change = EDITS[edit]
    return "\n".join(change(line, words, instead) for line in (text.splitlines() or [""]))


def said(edit: str, words: str = "", instead: str = "") -> str:
    """What an edit did, in few words."""
    return SAID[edit].format(words=f"“{words.strip()}”", instead=f"“{instead.strip()}”", kind=words.strip())
