"""The test of a LoRA: the same seeds at several strengths, in other contexts, and from every saved epoch.

All pictures are made as a user makes them, outside training and through ``<lora:NAME:weight>`` in the prompt.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from lora_trainer.errors import ConfigError, memory_problem
from lora_trainer.evaluation.choosing import ranked_files
from lora_trainer.evaluation.cost import DEPTHS, choose, cost, seconds
from lora_trainer.evaluation.events import TestedImage, TestEvent, TestPlanned
from lora_trainer.evaluation.examine import Findings, examine
from lora_trainer.evaluation.lora_file import SavedPoint, read_metadata, saved_points
from lora_trainer.evaluation.plan import Shot, TestPlan, plan_shots
from lora_trainer.evaluation.report import Result, write_report, write_so_far
from lora_trainer.evaluation.trained import read_log, read_run
from lora_trainer.evaluation.unfinished import Unfinished, about
from lora_trainer.files import replaced
from lora_trainer.hosts.base import GeneratedImage, GenerateRequest, Host
from lora_trainer.lora_folder import check_inside, find_lora
from lora_trainer.memory import release_all
from lora_trainer.training.events import CancelToken, Notice

FRESH = 3.0  # seconds for which the report of a test at work is as good as a new one


def test_lora(
    host: Host, lora: str | Path, plan: TestPlan, output: Path, token: CancelToken | None = None, *,
    resume: bool = False,
) -> Iterator[TestEvent]:  # fmt: skip
    """Measure, render the plan, then write grids, ``report.json`` and ``report.html`` into the run's folder ``output``.

    Args:
        lora: name of a LoRA in ``host.lora_dir``, or the path of a file there.
        token: a cancelled test stops after the pictures at work and reports what there is.
        resume: go on with the test of that folder that didn't come to its end.

    Raises:
        FileError: if the LoRA or the output folder can't be used.
        ConfigError: if a picture can't be made with these settings, told before the first one; or if something has
            changed since the test that is to be continued.
        LoraTrainerError: if one fails all the same; grids and pages of those made before are written first.
    """
    path = find_lora(lora, host.lora_dir) if isinstance(lora, str) else check_inside(lora, host.lora_dir)
    read_metadata(path)
    info = host.info()
    plan = plan.completed(info.resolution)
    token = token or CancelToken()
    points = saved_points(path) if plan.epochs else []
    host.refresh_loras([path, *(point.path for point in points)])
    if not plan.trigger:
        yield Notice(f"{path.name} doesn't say what its trigger word is; the test prompts go without one.")
    check_all(host, [group[0].request(plan.request) for group in alike(plan_shots(path, plan, points))])
    found, made, run = Findings(), list[TestedImage](), read_run(output / "run.json")
    depth = choose(plan, len(points) + 1, run)
    work = cost(plan, len(points) + 1, depth)
    plan = plan if plan.seeds_chosen else replace(plan, seeds=plan.seeds[: depth.seeds])
    files = [point.path for point in points]
    before, same = Unfinished(output), about([*files, path], info, plan, depth)
    if resume:
        before.load(same, found)
    else:
        before.begin(same, plan.asked)
    planned = TestPlanned(work.images, work.as_images, seconds(work, run, read_log(output / "log.jsonl")))
    yield replace(planned, before=before.share(planned))
    if plan.measures and not before.measured:
        for event in examine(host, path, files, plan, run, found, token, depth):
            before.keep(found)
            yield event
        if found.cells and not token.cancelled:
            before.keep_all(found)
    shots = plan_shots(path, plan, _shown(points, found, depth.fine if found.cells else DEPTHS[0].fine))
    result = Result(path, info, plan, points, output, found)
    try:
        shown = -math.inf
        for image in _render(host, shots, plan, output, token, before):
            if isinstance(image, Notice):
                yield image
                continue
            made.append(image)
            if time.monotonic() - shown > FRESH:
                write_so_far(result, made)
                shown = time.monotonic()
            yield image
    except Exception:
        if made:
            page = write_report(result, made, stopped=True).page
            yield Notice(f"The test failed after {len(made)} of {len(shots)} images; {page} shows those.")
        raise
    stopped = len(made) < len(shots)
    if not stopped:
        before.end()
    yield write_report(result, made, stopped)


def _shown(points: Sequence[SavedPoint], found: Findings, most: int) -> list[SavedPoint]:
    """The files on the way that are worth pictures: the best by what was measured, or some evenly spread."""
    best = ranked_files(list(found.cells.values()))
    names = [name for name in best if any(point.path.name == name for point in points)][:most]
    if not names:
        most = min(most, len(points))
        names = [points[round(i * (len(points) - 1) / max(most - 1, 1))].path.name for i in range(most)]
    return [point for point in points if point.path.name in names]


def _render(
    host: Host, shots: Sequence[Shot], plan: TestPlan, output: Path, token: CancelToken, before: Unfinished
) -> Iterator[TestedImage | Notice]:
    """Make and save the pictures that aren't there yet, those that differ in the seed only together."""
    done = 0
    for group in alike(shots):
        if token.cancelled:
            return
        there = {shot.stem: before.picture(shot.stem) for shot in group}
        made = generate_all(host, [shot.request(plan.request) for shot in group if there[shot.stem] is None])
        for shot in group:
            target, done = output / "images" / f"{shot.stem}.png", done + 1
            if (ready := there[shot.stem]) is not None:
                image, prompt, infotext = ready
            else:
                generated = next(made)
                if isinstance(generated, str):
                    release_all()
                    yield Notice(f"Test image {done} of {len(shots)} was left out. {generated}")
                    continue
                save_picture(generated, target)
                image, prompt, infotext = generated.image, generated.request.prompt, generated.infotext
            tested = TestedImage(done, len(shots), shot, image, infotext, prompt, target)
            before.keep_picture(tested)
            yield tested


test_lora.__test__ = False  # type: ignore[attr-defined]  # it isn't one of pytest's


def check_all(host: Host, requests: Sequence[GenerateRequest]) -> None:
    """Refuse what can't be made before anything is: nobody wants to learn of a misspelt sampler after an hour.

    Raises:
        LoraTrainerError: in one sentence.
    """
    for request in requests:
        for side, pixels in (("width", request.width), ("height", request.height)):
            if pixels < 64 or pixels % 8:
                raise ConfigError(f"The test images' {side} can't be {pixels}; give a multiple of 8, at least 64.")
        host.check(request)


def alike(shots: Sequence[Shot]) -> list[list[Shot]]:
    """Neighbours that can be made together: they differ in the seed only."""
    groups = groupby(shots, lambda shot: (shot.kind, shot.file, shot.strength, shot.prompt))
    return [list(group) for _, group in groups]


def generate_all(host: Host, requests: Sequence[GenerateRequest]) -> Iterator[GeneratedImage | str]:
    """The pictures of the requests; in one go where the host can, and where memory suffices for that.

    In place of a picture for which it doesn't suffice at all comes a sentence.
    """
    many: Callable[[Sequence[GenerateRequest]], list[GeneratedImage]] | None = getattr(host, "generate_many", None)
    if many is not None:
        try:
            yield from many(requests)
            return
        except Exception as error:
            if not memory_problem(error):
                raise
        release_all()
    yield from (_one(host, request) for request in requests)


def _one(host: Host, request: GenerateRequest) -> GeneratedImage | str:
    try:
        return host.generate(request)
    except Exception as error:
        if not (problem := memory_problem(error)):
            raise
        return problem


def save_picture(generated: GeneratedImage, path: Path) -> None:
    """Save as PNG with its infotext, so that the WebUI's PNG Info tab reads it."""
    from PIL.PngImagePlugin import PngInfo

    chunks = PngInfo()
    chunks.add_text("parameters", generated.infotext)
    with replaced(path) as temporary:
        generated.image.save(temporary, format="PNG", pnginfo=chunks)
