"""Captions of the class: the trigger word replaced by the class word, for prior preservation without images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lora_trainer.config import RunConfig
from lora_trainer.dataset.items import Dataset
from lora_trainer.errors import ConfigError, quoted


@dataclass(frozen=True)
class ClassCaptions:
    """Captions with the class word in place of the trigger word."""

    word: str
    trigger: str  # empty where only the folders tell

    @classmethod
    def of(cls, config: RunConfig, trigger: str, dataset: Dataset) -> ClassCaptions | None:
        """Those of a run; None if it preserves nothing.

        Raises:
            ConfigError: if no caption holds the trigger word, so that nothing would be preserved.
        """
        if not config.loss.diff_output_preservation:
            return None
        made = cls(config.loss.preservation_class.strip(), trigger.strip())
        if not any(made.caption(line, item.folder.trigger) for item in dataset.items for line in item.captions):
            words = made.trigger or next((item.folder.trigger for item in dataset.items), "")
            raise ConfigError(
                f"diff_output_preservation needs captions with the trigger word, and none has {quoted(words)}; write "
                "it into the captions, or set diff_output_preservation to 0."
            )
        return made

    def caption(self, text: str, folder: str) -> str | None:
        """A caption of the class; None where it hasn't the trigger word.

        Args:
            folder: the words of the image's folder: the trigger word, and often the class behind it.
        """
        known = {self.trigger, folder.strip(), folder.strip().partition(" ")[0]} - {""}
        found = next((words for words in sorted(known, key=len, reverse=True) if words in text), None)
        return None if found is None else text.replace(found, self.word)


def both(texts: Iterable[tuple[str, str]], classes: ClassCaptions | None) -> Iterable[str]:
    """Captions, given with their folders' words, and those of the class behind each."""
    for text, folder in texts:
        yield text
        if classes is not None and (other := classes.caption(text, folder)) is not None:
            yield other
