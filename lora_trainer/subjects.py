"""Kinds of subject, and what a test asks of each: the same thing elsewhere, in another style, pose or light.

A context is a sentence with ``{subject}``. With the class word it is a prompt for the base model; with the trigger it
is one for the LoRA.
"""

from __future__ import annotations

from dataclasses import dataclass

SUBJECT = "{subject}"
SMALLEST = 256  # px; a smaller model is one to practise on


@dataclass(frozen=True)
class Subject:
    """A kind of subject. ``classes``: words for what the base model knows of that kind, in turn."""

    name: str
    classes: tuple[str, ...]
    contexts: tuple[str, ...]
    integration: tuple[tuple[str, float], ...]  # for pictures: text with {lora} and {trigger}, strength

    def class_prompts(self) -> tuple[str, ...]:
        """One prompt without the trigger for each context."""
        return tuple(self.at(i, self.classes[i % len(self.classes)]) for i in range(len(self.contexts)))

    def trigger_prompts(self, trigger: str, with_class: bool) -> tuple[str, ...]:
        """The same with the trigger; followed by the class word if the captions have it."""
        words = [f"{trigger} {name}" if with_class else trigger for name in self.classes]
        return tuple(self.at(i, words[i % len(words)]) for i in range(len(self.contexts)))

    def at(self, index: int, word: str) -> str:
        """A context about something."""
        return self.contexts[index].replace(SUBJECT, word)


SPEC = (("masterpiece, {lora} {trigger} in a forest", 0.8), ("{lora} {trigger}, cyberpunk style", 0.7))

SUBJECTS: dict[str, Subject] = {
    subject.name: subject
    for subject in (
        Subject(
            "person", ("a man", "a woman", "a person"),
            ("{subject} in a forest", "{subject} on a beach at noon", "{subject} in a city street at night",
             "{subject} sitting in a kitchen", "{subject} in the snow, wearing a coat", "a pencil drawing of {subject}",
             "{subject} in profile, studio light", "{subject} riding a bicycle"),
            (*SPEC, ("{lora} {trigger} on a beach, smiling", 0.8), ("a pencil drawing of {lora} {trigger}", 0.8)),
        ),
        Subject(
            "character", ("a girl", "a boy", "a man"),
            ("{subject} in a forest", "{subject} on a beach at noon", "{subject} in a city street at night",
             "{subject} sitting at a desk", "{subject} in the snow, wearing a coat", "a watercolor of {subject}",
             "{subject} running, from the side", "{subject} eating a sandwich"),
            (*SPEC, ("{lora} {trigger} running, from the side", 0.8), ("a watercolor of {lora} {trigger}", 0.8)),
        ),
        Subject(
            "object", ("a bottle", "a toy", "a chair"),
            ("{subject} in a forest", "{subject} on a beach", "{subject} on a wooden table", "{subject} in the snow",
             "{subject} in a city street at night", "a pencil drawing of {subject}", "{subject} on a red cloth",
             "{subject} floating in water"),
            (*SPEC, ("{lora} {trigger} on a wooden table", 0.8), ("a pencil drawing of {lora} {trigger}", 0.8)),
        ),
        Subject(
            "style", ("a house", "a cat", "a woman", "a landscape"),
            ("{subject} in a forest", "{subject} at night", "{subject} in the snow", "{subject} by the sea",
             "{subject} in the rain", "{subject} in spring", "{subject} seen from above", "{subject} in a city"),
            (*SPEC, ("{lora} a cat, {trigger}", 0.8), ("{lora} a street at night, {trigger}", 0.8)),
        ),
        Subject(
            "concept", ("a person", "a dog", "a car"),
            ("{subject} in a forest", "{subject} on a beach", "{subject} in a city street at night",
             "{subject} in the snow", "{subject} in a kitchen", "a pencil drawing of {subject}",
             "{subject} seen from above", "{subject} in the rain"),
            (*SPEC, ("{lora} {trigger} on a beach", 0.8), ("a pencil drawing of {lora} {trigger}", 0.8)),
        ),
        Subject(
            "practice", ("circle", "square", "triangle", "star", "cross", "ring"),
            ("a red {subject} in the center, white background", "a blue {subject} on the left, beige background",
             "a green {subject} at the top, black background", "a yellow {subject} on the right, gray background",
             "a purple {subject} at the bottom, mint background", "an orange {subject}, lavender background"),
            (("{lora} a blue {trigger} on the left, black background", 0.8),
             ("{lora} a yellow {trigger} at the top, gray background", 0.8),
             ("{lora} a green {trigger} on the right, lavender background", 0.8),
             ("{lora} a purple {trigger} at the bottom, beige background", 0.8)),
        ),
    )
}  # fmt: skip


def usual_subject(side: int) -> Subject:
    """Where nobody said what it is; ``side`` in pixels is the model's native size."""
    return SUBJECTS["practice" if side < SMALLEST else "concept"]
