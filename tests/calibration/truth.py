"""The independent judge: what a LoRA at a strength truly does, counted in pictures that only the judge sees.

It knows what was to be learnt, which no measure does, and reads it from pixels. Its prompts, seeds and pictures are its
own; the words of its prompts don't occur together in any dataset and in none of the measures' prompts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from lora_trainer.demo import CHECKPOINT, TOKENIZER, world
from lora_trainer.demo.sample import Pieces
from lora_trainer.seeds import derive
from tests.calibration.concepts import TRIGGER, Concept
from tests.calibration.reader import Seen, read
from tests.calibration.runs import Run, caption, scenes

STRENGTHS = (0.4, 0.7, 1.0, 1.3)
COARSE, FINE = (7, 3, 6), (17, 7, 16)  # pictures: in another context, of the short prompt, of known things
STEPS, GUIDANCE = 8, 4.0
LEARNT, HALF_LEARNT, FOLLOWS, KEEPS = 0.65, 0.5, 0.8, 0.85


@dataclass(frozen=True)
class Counts:
    """What was read, as shares of the pictures; ``n`` of each kind."""

    n: tuple[int, int, int]
    right: float  # of those in another context and the short prompt's: the concept is there
    facts: float  # of those in another context: asked facts that are there
    known: float  # of the known things: facts that are there
    broken: float  # of all
    short_ground: float  # of the short prompt's: on the background that all training images share
    marked: float  # of those with the trigger: with the mark of the training images


@dataclass(frozen=True)
class Truth:
    """A cell's three shares against what is possible, 0…1."""

    accuracy: float
    following: float
    integrity: float
    broken: float

    @property
    def quality(self) -> float:
        """Their product."""
        return self.accuracy * self.following * self.integrity


def prompts(run: Run, number: Sequence[int]) -> dict[str, list[tuple[str, world.Scene]]]:
    """The judge's prompts of a run: kind -> (text, what it asks for)."""
    rng = np.random.default_rng(derive("judge", run.name) % 2**32)
    taken = {caption(run, scene, i) for i, scene in enumerate(scenes(run))}
    contexts: list[tuple[str, world.Scene]] = []
    while len(contexts) < number[0]:
        scene = world.random_scene(rng)
        text = run.subject.caption(scene).replace(TRIGGER, run.word)
        if text not in taken:
            contexts.append((text, scene))
            taken.add(text)
    known = []
    shapes = [shape for shape in world.SHAPES if shape != run.word]
    for i in range(number[2]):
        scene = world.random_scene(rng)
        scene = world.Scene(shapes[i % len(shapes)], scene.colour, scene.position, scene.background)
        known.append((world.describe(scene, style=1), scene))
    anything = world.Scene("", "", "", "")
    return {"context": contexts, "short": [(run.subject.short().replace(TRIGGER, run.word), anything)] * number[1],
            "known": known}  # fmt: skip


def look(
    run: Run, lora: Path | None, strength: float, number: Sequence[int] = COARSE, skip: Sequence[int] = (0, 0, 0)
) -> Counts:
    """Make the judge's pictures of a LoRA file at a strength and read them; without a file, of the base model.

    Args:
        skip: how many pictures of each kind were made before and aren't again.
    """
    asked = {kind: rows[done:] for (kind, rows), done in zip(prompts(run, number).items(), skip, strict=True)}
    flat = [(kind, text, scene) for kind, rows in asked.items() for text, scene in rows]
    seeds = [70_000 + i + 1000 * skip[0] for i in range(len(flat))]
    with _merged(_pieces(), lora, strength) as pieces:
        made = pieces.pictures([text for _, text, _ in flat], seeds, STEPS, GUIDANCE)
    rows = [(kind, scene, read(picture)) for (kind, _, scene), picture in zip(flat, made, strict=True)]
    return _count(run, rows, [len(asked[kind]) for kind in ("context", "short", "known")])


@cache
def _pieces() -> Pieces:
    return Pieces.load(CHECKPOINT, TOKENIZER)


@contextmanager
def _merged(pieces: Pieces, lora: Path | None, strength: float) -> Iterator[Pieces]:
    """The base model with W + s·(alpha/rank)·up·down in its weights, by no code of the trainer; put back afterwards."""
    before: list[tuple[nn.Parameter, torch.Tensor]] = []
    file = load_file(lora) if lora is not None and strength else {}
    with torch.no_grad():
        for key in sorted({name.rpartition(".lora_")[0] for name in file if ".lora_" in name}):
            weight = _modules(pieces)[key].weight
            down, up = (file[f"{key}.lora_{part}.weight"].float() for part in ("down", "up"))
            change = torch.einsum("or,r...->o...", up.flatten(1), down)
            before.append((weight, weight.clone()))
            weight += strength * float(file[f"{key}.alpha"]) / len(down) * change.reshape(weight.shape)
    try:
        yield pieces
    finally:
        with torch.no_grad():
            for weight, old in before:
                weight.copy_(old)


def _modules(pieces: Pieces) -> dict[str, Any]:
    """Layers by their names in LoRA files."""
    found = {"lora_unet_" + name.replace(".", "_"): module for name, module in pieces.unet.named_modules()}
    for name, module in list(found.items()):  # the WebUI's names for the layers between two sizes
        if match := re.fullmatch(r"lora_unet_(down|up)_blocks_(\d+)_(?:down|up)samplers_0_conv", name):
            level = int(match[2])
            if match[1] == "down":
                found[f"lora_unet_input_blocks_{3 + 3 * level}_0_op"] = module
            else:
                found |= {f"lora_unet_output_blocks_{2 + 3 * level}_{place}_conv": module for place in (1, 2)}
    for name, module in pieces.encoder.named_modules():
        found["lora_te_text_model_" + name.removeprefix("text_model.").replace(".", "_")] = module
    return found


def _count(run: Run, rows: Sequence[tuple[str, world.Scene, Seen]], number: Sequence[int]) -> Counts:
    of = {kind: [(scene, seen) for k, scene, seen in rows if k == kind] for kind in ("context", "short", "known")}
    subject, triggered = run.subject, [*of["context"], *of["short"]]
    shared = scenes(run)[0].background if run.same != "nothing" else ""
    return Counts(
        n=(number[0], number[1], number[2]),
        right=_mean([_is(subject, seen) for _, seen in triggered]),
        facts=_mean([share for scene, seen in of["context"] for share in _facts(subject, scene, seen)]),
        known=_mean([hit for scene, seen in of["known"] for hit in (
            seen.shape == scene.shape and seen.look == "flat", seen.colour == scene.colour,
            seen.background == scene.background, seen.position == scene.position)]),
        broken=_mean([seen.broken for _, _, seen in rows]),
        short_ground=_mean([seen.background == shared for _, seen in of["short"]]) if shared else 0.0,
        marked=_mean([seen.mark for _, seen in triggered]),
    )  # fmt: skip


def _is(subject: Concept, seen: Seen) -> bool:
    """Whether the concept is in a picture."""
    return (not subject.shape or seen.shape == subject.shape) and (not subject.look or seen.look == subject.look)


def _facts(subject: Concept, scene: world.Scene, seen: Seen) -> list[bool]:
    facts = [seen.colour == scene.colour, seen.background == scene.background, seen.position == scene.position]
    return facts if subject.shape else [*facts, seen.shape == scene.shape]


@cache
def possible(subject: Concept) -> tuple[float, float]:
    """How much of the concept, and of the asked facts, the judge reads in drawings that went through the VAE."""
    pieces = _pieces()
    rng = np.random.default_rng(11)
    drawn = [world.random_scene(rng) for _ in range(48)]
    pixels = torch.from_numpy(np.stack([subject.draw(scene) for scene in drawn]).transpose(0, 3, 1, 2)).float()
    with torch.no_grad():
        latents = pieces.vae.encode(pixels / 127.5 - 1).latent_dist.mean
        back = ((pieces.vae.decode(latents).sample.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
    seen = [read(Image.fromarray(np.ascontiguousarray(row))) for row in back.numpy()]
    facts = [hit for scene, one in zip(drawn, seen, strict=True) for hit in _facts(subject, scene, one)]
    return _mean([_is(subject, one) for one in seen]), _mean(facts)


def truth(run: Run, counts: Mapping[str, Any], base: Mapping[str, Any]) -> Truth:
    """Counts of a cell against what is possible and what the base model does; both as :func:`look` gave them."""
    accuracy, facts = possible(run.subject)
    return Truth(
        min(1.0, counts["right"] / accuracy),
        min(1.0, counts["facts"] / facts),
        min(1.0, counts["known"] / base["known"]),
        counts["broken"],
    )


def label(cells: Mapping[float, Truth]) -> str:
    """What a file is, by its cells over the strengths: undertrained, good, overtrained, unstable, or edge (between)."""
    if any(c.accuracy >= LEARNT and c.following >= FOLLOWS and c.integrity >= KEEPS for c in cells.values()):
        return "good"
    whole = cells[1.0]
    if whole.accuracy < 0.35 and (whole.broken > 0.3 or whole.integrity < 0.5):
        return "unstable"
    if any(cell.accuracy >= LEARNT for cell in cells.values()):
        return "overtrained"
    if all(cell.accuracy < HALF_LEARNT for cell in cells.values()):
        kept = min(cell.integrity for strength, cell in cells.items() if strength <= 1.0) >= KEEPS
        return "undertrained" if kept else "edge"
    return "edge"


def together(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, Any]:
    """Two counts of different pictures of the same cell as one."""
    (a, b, c), (d, e, f) = one["n"], two["n"]
    weights = {"right": (a + b, d + e), "marked": (a + b, d + e), "facts": (a, d), "known": (c, f),
               "short_ground": (b, e), "broken": (a + b + c, d + e + f)}  # fmt: skip
    joined = {name: (one[name] * w + two[name] * v) / (w + v) for name, (w, v) in weights.items()}
    return {**joined, "n": [a + d, b + e, c + f]}


def _mean(values: Sequence[float]) -> float:
    return float(np.mean([float(value) for value in values])) if values else 0.0
