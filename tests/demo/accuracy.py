"""How many generated pictures show what was asked: ``python -m tests.demo.accuracy [--checkpoint FILE]``."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from lora_trainer.demo import CHECKPOINT, TOKENIZER
from lora_trainer.demo.world import caption
from tests.demo.world_reader import BACKGROUNDS, COLOURS, POSITIONS, Reading, read

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")


def asked(count: int, seed: int = 0) -> list[Reading]:
    """``count`` different sets of facts, with shapes and colours as even as the number allows."""
    rng = np.random.default_rng(seed)
    rounds = -(-count // (len(SHAPES) * len(COLOURS)))
    pairs = [(s, c) for _ in range(rounds) for s in SHAPES for c in COLOURS]
    chosen = rng.permutation(len(pairs))[:count]
    return [
        Reading(*pairs[i], str(rng.choice(list(BACKGROUNDS))), str(rng.choice(list(POSITIONS))), 1.0) for i in chosen
    ]


def prompt(facts: Reading, style: int = 0) -> str:
    """The caption of a set of facts."""
    return caption(facts.shape, facts.colour, facts.position, facts.background, style)


def score(facts: list[Reading], pictures: list[Image.Image]) -> tuple[dict[str, int], list[tuple[Reading, Reading]]]:
    """Number of right readings by attribute and of shape and colour together; and the (asked, read) pairs not right."""
    right: Counter[str] = Counter(shape=0, colour=0, background=0, position=0, both=0)
    wrong = []
    for want, picture in zip(facts, pictures, strict=True):
        got = read(picture)
        for name in ("shape", "colour", "background", "position"):
            right[name] += getattr(want, name) == getattr(got, name)
        both = (want.shape, want.colour) == (got.shape, got.colour)
        right["both"] += both
        if not both:
            wrong.append((want, got))
    return dict(right), wrong


def sheet(pictures: list[Image.Image], columns: int = 20) -> Image.Image:
    """All pictures on one sheet."""
    rows = -(-len(pictures) // columns)
    canvas = Image.new("RGB", (columns * 66, rows * 66), "red")
    for i, picture in enumerate(pictures):
        canvas.paste(picture, (i % columns * 66 + 1, i // columns * 66 + 1))
    return canvas


def main(argv: list[str] | None = None) -> int:
    """Generate, read, print the counts."""
    from lora_trainer.demo.sample import Pieces

    parser = argparse.ArgumentParser(prog="python -m tests.demo.accuracy", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--style", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="save all pictures here")
    args = parser.parse_args(argv)
    pieces = Pieces.load(args.checkpoint, TOKENIZER)
    facts = asked(args.count, args.seed)
    prompts = [prompt(f, args.style) for f in facts]
    seeds = [args.seed * 10000 + i for i in range(args.count)]
    pictures = pieces.pictures(prompts, seeds, args.steps, args.guidance)
    right, wrong = score(facts, pictures)
    if args.sheet:
        sheet(pictures).save(args.sheet)
    sys.stdout.write(f"of {args.count}: " + ", ".join(f"{name} {n}" for name, n in right.items()) + "\n")
    for want, got in wrong:
        sys.stdout.write(f"  asked {want.colour} {want.shape}, read {got.colour} {got.shape} ({got.overlap:.2f})\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
