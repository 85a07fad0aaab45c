"""What a first LoRA of each kind of subject takes: images, captions, and what a good result does.

Numbers and rules are those of the workflow for a first LoRA.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from lora_trainer.errors import ConfigError, quoted


@dataclass(frozen=True)
class Plan:
    """Each text is a sentence, or several."""

    fewest: int  # images that are usual
    most: int
    images: str  # what they should show
    captions: str  # with an example
    success: str  # what the test of the LoRA will answer
    preset: str  # by name

    def lines(self, kind: str) -> list[str]:
        """The plan for a person to read."""
        return [
            f"Images for {an(kind)}: {self.fewest} to {self.most}. {self.images}", f"Captions: {self.captions}",
            f"A good result: {self.success}", f"Preset: {self.preset}.",
        ]  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


_RULE = "Begin with the trigger word, then describe what is to stay changeable"
PLANS: dict[str, Plan] = {
    "person": Plan(
        15, 20,
        "Different angles, expressions, distances, clothes and places; the light may be alike. One person in each.",
        f"{_RULE}: clothes, place, expression. Leave out what belongs to the person, such as the colour of the hair. "
        "For example: zwx_anna, woman in a red coat, smiling, front view, in a park.",
        "the likeness is recognised in other clothes, places and styles, and the faces have no distortions.", "person",
    ),
    "character": Plan(
        15, 20,
        "Different poses, angles, expressions and backgrounds, all of the same design. One character in each.",
        f"{_RULE}: pose, expression, background. Leave out what belongs to the character, such as hair and eyes. "
        "For example: zwx_mika, running, from the side, in a city street.",
        "the character is recognised in other poses and scenes, and its outfit follows the prompt.", "character",
    ),
    "style": Plan(
        20, 50,
        "Different subjects in the one style: people, places, things. No subject should be in most of them.",
        f"{_RULE}: everything that the image shows, but not the style itself. For example: zwx_ink, mountains above a "
        "lake, a boat.",
        "any subject is drawn in the style, and no subject of the images turns up unasked.", "style",
    ),
    "object": Plan(
        10, 30,
        "All sides of the one object, near and far, on different backgrounds and in different light.",
        f"{_RULE}: place, background, light, angle. For example: zwx_camera, on a wooden table, from above, daylight.",
        "the object keeps its shape and details in other places and from other sides.", "object",
    ),
    "concept": Plan(
        30, 100,
        "The concept with many different people, things and places, so that it is all that they have in common.",
        f"{_RULE}: who and what is there, and where. For example: zwx_float, a dog, above a meadow, at noon.",
        "the concept works with subjects that aren't in the images, and doesn't appear without its word.", "concept",
    ),
}  # fmt: skip


def an(word: str) -> str:
    """The word with its article."""
    return f"{'an' if word[:1].lower() in tuple('aeiou') else 'a'} {word}"


def plan_for(kind: str) -> Plan | None:
    """The plan for a kind of subject; None where nobody said which.

    Raises:
        ConfigError: if there is no such kind.
    """
    if kind and kind not in PLANS:
        raise ConfigError(f"subject can't be {quoted(kind)}; give one of {', '.join(PLANS)}.")
    return PLANS.get(kind)
