"""Measure the files of a test: all of them coarsely, then the best ones at every strength, with pictures at the end."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lora_trainer.errors import FileError, LoraTrainerError, first_line, memory_problem
from lora_trainer.evaluation.choosing import best_cell, ranked_files
from lora_trainer.evaluation.cost import DEPTHS, Depth, measured, nearest
from lora_trainer.evaluation.events import Measuring
from lora_trainer.evaluation.looking import Eyes, Look
from lora_trainer.evaluation.lora_file import read_metadata
from lora_trainer.evaluation.material import Material, gather
from lora_trainer.evaluation.measuring import Bench, Cell
from lora_trainer.evaluation.plan import TestPlan
from lora_trainer.measures.probe import Probe
from lora_trainer.measures.sampling import sample
from lora_trainer.measures.weights import Health, health
from lora_trainer.safetensors_file import whole_number
from lora_trainer.training.events import CancelToken, Notice

if TYPE_CHECKING:
    from lora_trainer.hosts.base import Host, TakenModel

log = logging.getLogger(__name__)


@dataclass
class Findings:
    """What was measured; ``missing`` has a sentence for everything that wasn't."""

    cells: dict[tuple[str, float], Cell] = field(default_factory=dict)
    looks: dict[tuple[str, float], Look] = field(default_factory=dict)
    health: dict[str, Health] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def of(self, file: str) -> list[Cell]:
        """The cells of a file, by strength."""
        return sorted((cell for cell in self.cells.values() if cell.file == file), key=lambda cell: cell.strength)


def examine(
    host: Host, main: Path, others: Sequence[Path], plan: TestPlan, run: Mapping[str, Any], found: Findings,
    token: CancelToken | None = None, depth: Depth = DEPTHS[0],
) -> Iterator[Measuring | Notice]:  # fmt: skip
    """Measure what ``found`` doesn't have yet; it is filled on the way, so that a stop or a failure loses nothing.

    Args:
        main: the LoRA; ``others`` are the files saved on the way to it.
        run: ``run.json`` of the run that trained it, or an empty dict.
    """
    try:
        with host.take(str(host.defaults().get("mixed_precision", "no"))) as model, torch.no_grad():
            yield from _examine(model, [*others, main], plan, run, found, token or CancelToken(), depth)
    except LoraTrainerError as error:
        found.missing.append(f"Not everything was measured: {error}")
    except (RuntimeError, MemoryError) as error:  # a measure must never take the pictures with it
        log.warning("Measuring failed", exc_info=error)
        found.missing.append(f"Not everything was measured: {memory_problem(error) or first_line(error)}")
    yield from map(Notice, found.missing)


def _examine(
    model: TakenModel, files: Sequence[Path], plan: TestPlan, run: Mapping[str, Any], found: Findings,
    token: CancelToken, depth: Depth,
) -> Iterator[Measuring]:  # fmt: skip
    main = files[-1]
    probe = _probe(model, main)
    usable = [path for path in files if _readable(probe, path, found)]
    if not usable:
        return
    material = gather(probe, plan.subject, plan.trigger, run, model.info.resolution, depth.images, depth.known)
    if material.reason:
        found.missing.append(f"How much it learned of its training images wasn't measured: {material.reason}.")
    bench = Bench(probe, material)
    strengths = measured(plan)
    if not strengths:
        found.missing.append("Nothing was measured: at strength 0 there is only the base model.")
        return
    coarse = nearest(strengths, depth.coarse)
    todo = [(path, strength) for path in usable for strength in coarse]
    total = len(todo) + min(depth.fine + 1, len(usable)) * (len(strengths) - len(coarse)) + depth.looks
    for path, strength in todo:
        if token.cancelled:
            return
        if (path.name, strength) not in found.cells:
            found.cells[path.name, strength] = bench.cell(path, strength)
            yield Measuring(len(found.cells), total, path, strength)
    best = ranked_files(list(found.cells.values()))[: depth.fine]
    for path in [path for path in usable if path.name in best or path == main]:
        for strength in strengths:
            if token.cancelled:
                return
            if (path.name, strength) not in found.cells:
                found.cells[path.name, strength] = bench.cell(path, strength)
                yield Measuring(len(found.cells), max(total, len(found.cells)), path, strength)
    yield from _look(probe, material, usable, plan, found, total, token, depth)


def _look(
    probe: Probe, material: Material, files: Sequence[Path], plan: TestPlan, found: Findings, total: int,
    token: CancelToken, depth: Depth,
) -> Iterator[Measuring]:  # fmt: skip
    """Small pictures of the main file's and the best files' best strengths."""
    ranked = ranked_files(list(found.cells.values()))
    wanted = [path for path in files if path == files[-1] or path.name in ranked[: depth.looks]]
    shape = tuple(material.known.latents.shape[1:])
    trigger = [plan.trigger] * depth.short
    eyes = Eyes(
        probe, sample(probe, material.asked, shape, "asked"), sample(probe, trigger, shape, "short"),
        material.images.latents if material.images else None,
    )  # fmt: skip
    for path in wanted:
        best = best_cell(found.of(path.name))
        for strength in sorted({best.strength, 1.0} & {cell.strength for cell in found.of(path.name)}):
            if token.cancelled:
                return
            if (path.name, strength) in found.looks:
                continue
            with probe.at(path, strength):
                pictures = sample(probe, material.asked, shape, "asked")
                short = sample(probe, trigger, shape, "short")
            found.looks[path.name, strength] = eyes.look(pictures, short)
            done = len(found.cells) + len(found.looks)
            yield Measuring(done, max(total, done), path, strength)


def _readable(probe: Probe, path: Path, found: Findings) -> bool:
    """Whether a file can be measured; why not is told."""
    try:
        found.health[path.name] = health(probe.network(path).modules)
    except FileError as error:
        found.missing.append(f"{path.name} wasn't measured: {error}")
        return False
    return True


def _probe(model: TakenModel, lora: Path) -> Probe:
    """Encodes captions as the LoRA says that it was trained."""
    metadata = read_metadata(lora)
    skip = whole_number(metadata.get("ss_clip_skip", ""), 12) or 1
    return Probe(model, skip, whole_number(metadata.get("ss_max_token_length", ""), 225) or 75)
