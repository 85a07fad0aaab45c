"""The demo's dataset: a concept that the checkpoint does not know, drawn in the world's manner, and test prompts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from lora_trainer.demo import world

TRIGGER = "zorbo"
CONCEPT = "hourglass"  # the drawing behind the trigger, see `world.shape_distance`
FOLDER = f"10_{TRIGGER}"  # kohya's layout: repeats_trigger
COUNT = 18

# Prompts for testing the LoRA. None of their sets of facts is in the dataset.
STRENGTH_PROMPT = world.caption(TRIGGER, "red", "in the center", "white")
INTEGRATION_PROMPTS: tuple[str, ...] = (
    world.caption(TRIGGER, "blue", "on the left", "black"),
    world.caption(TRIGGER, "yellow", "at the top", "gray"),
    world.caption(TRIGGER, "green", "on the right", "lavender"),
    world.caption(TRIGGER, "purple", "at the bottom", "beige"),
)
KNOWN_PROMPTS: tuple[str, ...] = (
    world.caption("circle", "red", "in the center", "white"),
    world.caption("square", "blue", "on the left", "beige"),
    world.caption("triangle", "green", "at the top", "black"),
    world.caption("star", "yellow", "on the right", "gray"),
    world.caption("cross", "purple", "at the bottom", "mint"),
    world.caption("ring", "orange", "in the center", "lavender"),
)


def held_out() -> frozenset[str]:
    """Captions kept out of the dataset."""
    return frozenset((STRENGTH_PROMPT, *INTEGRATION_PROMPTS))


def scenes(seed: int = 0, count: int = COUNT) -> list[world.Scene]:
    """The dataset's scenes: colours, positions and backgrounds as even as possible, none of the test prompts."""
    rng = np.random.default_rng(seed)
    result: list[world.Scene] = []
    decks: dict[str, list[str]] = {"colour": [], "position": [], "background": []}
    words = {"colour": [*world.COLOURS], "position": [*world.POSITIONS], "background": [*world.BACKGROUNDS]}
    while len(result) < count:
        drawn = {}
        for name, deck in decks.items():
            if not deck:
                deck.extend(str(w) for w in rng.permutation(words[name]))
            drawn[name] = deck.pop()
        scene = world.jittered(CONCEPT, drawn["colour"], drawn["position"], drawn["background"], rng)
        if caption_of(scene) not in held_out():
            result.append(scene)
    return result


def caption_of(scene: world.Scene) -> str:
    """The scene's caption with the trigger in the place of the shape."""
    return world.caption(TRIGGER, scene.colour, scene.position, scene.background)


def write_dataset(directory: Path, seed: int = 0, count: int = COUNT, size: int = world.SIZE) -> Path:
    """Write ``<directory>/10_zorbo/NN.png`` (``size`` px square) with ``NN.txt``; returns ``directory``.

    The same seed gives the same files.
    """
    folder = directory / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for index, scene in enumerate(scenes(seed, count), start=1):
        Image.fromarray(world.draw(scene, size)).save(folder / f"{index:02d}.png")
        (folder / f"{index:02d}.txt").write_text(caption_of(scene) + "\n", encoding="utf-8")
    return directory
