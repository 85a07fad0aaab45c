"""From what a captioner sees to the caption of an image; pure functions."""

from __future__ import annotations

from dataclasses import dataclass

from lora_trainer.dataset.belongs import belongs, can_leave_out, left_out
from lora_trainer.dataset.caption_edits import SEPARATOR, tags_of, with_appended, with_prefix
from lora_trainer.dataset.remarks import plain
from lora_trainer.errors import ConfigError, quoted
from lora_trainer.hosts.base import Described

EXISTING = ("skip", "append", "replace")


@dataclass(frozen=True)
class Wording:
    """How captions are to be written.

    Raises:
        ConfigError: if a value can't be used.
    """

    existing: str = "skip"  # what becomes of a caption that is there
    trigger: str = ""  # "" for the words of the image's folder
    subject: str = ""  # what belongs to such a subject is left out; "" leaves nothing out
    threshold: float = 0.0  # of the probability of a tag
    deny: tuple[str, ...] = ()  # tags that are left out

    def __post_init__(self) -> None:
        if self.existing not in EXISTING:
            raise ConfigError(f"existing can't be {quoted(self.existing)}; give one of {', '.join(EXISTING)}.")
        if not 0 <= self.threshold <= 1:
            raise ConfigError(f"threshold can't be {self.threshold:g}; give a probability from 0 to 1.")


def caption_of(seen: Described, wording: Wording, trigger: str) -> str:
    """The trigger word, then what is to stay changeable.

    Args:
        trigger: that of the image.
    """
    text = seen.sentence or SEPARATOR.join(_tags(seen, wording))
    if seen.sentence:
        denied = set(map(plain, wording.deny))
        text = SEPARATOR.join(
            part for part in tags_of(" ".join(text.rstrip(". ").split())) if plain(part) not in denied
        )
        text = left_out(text, wording.subject) if can_leave_out(wording.subject) else text
    return with_prefix(text, trigger) if trigger.strip() else text


def _tags(seen: Described, wording: Wording) -> list[str]:
    denied = set(map(plain, wording.deny))
    named = set(map(plain, seen.names)) if wording.subject in ("person", "character") else set()
    likely = [tag for tag, share in seen.tags if share >= wording.threshold]
    apart = [tag for tag in likely if plain(tag) not in denied | named]
    return [tag for tag in apart if not (can_leave_out(wording.subject) and belongs(tag, wording.subject))]


def combined(text: str, caption: str, trigger: str) -> str:
    """A caption that is there, and after each of its lines what the new one says and it doesn't."""
    said = caption[len(trigger) :].lstrip(" ,") if trigger and caption.startswith(trigger) else caption
    lines = []
    for line in text.splitlines() or [""]:
        for tag in tags_of(said):
            line = with_appended(line, tag)
        lines.append(line if plain(trigger) in plain(line) else with_prefix(line, trigger))
    return "\n".join(lines)
