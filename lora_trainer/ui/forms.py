"""What the page's inputs hold, and what an action changes on the page; plain values, no gradio."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lora_trainer.config import RunConfig

# What a question offers, by the ending of the button that carries it out; "name" and "keep" are the page's own.
WAYS = {
    "resume": "Continue that training", "overwrite": "Replace it", "resume+overwrite": "Continue and replace them",
}  # fmt: skip
CHOICES = {
    **WAYS, **{f"queue+{way}": text for way, text in WAYS.items()},
    "queue+change": "Change that entry", **{f"queue+change+{way}": text for way, text in WAYS.items()},
    "name": "Choose another name", "undo": "Undo", "reset": "Reset everything", "keep": "Keep it",
    "advice": "Set what it calls for",
}  # fmt: skip
ANYTHING = "anything"  # no kind of subject
CUSTOM = "custom"  # no preset: loaded settings


@dataclass
class Page:
    """What the inputs hold, or shall hold: ``values`` of the steps by name, ``options`` of the table by name."""

    values: dict[str, Any]
    options: dict[str, Any]

    @property
    def dataset(self) -> str:
        """The folder, as typed."""
        return str(self.values.get("dataset") or "").strip().strip('"')

    @property
    def trigger(self) -> str:
        """The trigger word."""
        return str(self.values.get("trigger") or "").strip()

    @property
    def subject(self) -> str:
        """The kind of subject; "" where none was chosen."""
        chosen = str(self.values.get("subject") or "")
        return "" if chosen == ANYTHING else chosen

    @property
    def name(self) -> str:
        """The LoRA's name."""
        return str(self.values.get("name") or "").strip()

    def config(self) -> RunConfig:
        """The options, checked.

        Raises:
            ConfigError: one sentence.
        """
        return RunConfig.from_dict(self.options)


@dataclass
class Answer:
    """What changes on the page; what isn't named stays as it is."""

    html: dict[str, str] = field(default_factory=dict)  # by part: message, check_answer, plan, …
    values: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    cards: list[tuple[str, str]] | None = None  # of presets: text and name
