"""The test of a LoRA: the same seeds at several strengths, in other contexts, and from every saved epoch.

All pictures are made as a user makes them, outside training and through ``<lora:NAME:weight>`` in the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from lora_trainer.errors import ConfigError
from lora_trainer.evaluation.choosing import ranked_files
from lora_trainer.evaluation.cost import DEPTHS, choose, cost, seconds
from lora_trainer.evaluation.events import TestedImage, TestEvent, TestPlanned
from lora_trainer.evaluation.examine import Findings, examine
from lora_trainer.evaluation.lora_file import SavedPoint, read_metadata, saved_points
from lora_trainer.evaluation.plan import Shot, TestPlan, plan_shots
from lora_trainer.evaluation.report import Result, write_report
from lora_trainer.evaluation.trained import read_log, read_run
from lora_trainer.files import replaced
from lora_trainer.hosts.base import GeneratedImage, GenerateRequest, Host
from lora_trainer.lora_folder import check_inside, find_lora
from lora_trainer.training.events import CancelToken, Notice


def test_lora(
    host: Host, lora: str | Path, plan: TestPlan, output: Path, token: CancelToken | None = None
) -> Iterator[TestEvent]:
    """Measure, render the plan, then write grids, ``report.json`` and ``report.html`` into the run's folder ``output``.

    Args:
        lora: name of a LoRA in ``host.lora_dir``, or the path of a file there.
        token: a cancelled test stops after the pictures at work and reports what there is.

    Raises:
        FileError: if the LoRA or the output folder can't be used.
        ConfigError: if a picture can't be made with these settings; told before the first one.
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
    yield TestPlanned(work.images, work.as_images, seconds(work, run, read_log(output / "log.jsonl")))
    if plan.measures:
        yield from examine(host, path, [point.path for point in points], plan, run, found, token, depth)
    shots = plan_shots(path, plan, _shown(points, found, depth.fine if found.cells else DEPTHS[0].fine))
    result = Result(path, info, plan, points, output, found)
    try:
        for image in _render(host, shots, plan, output, token):
            made.append(image)
            yield image
    except Exception:
        if made:
            page = write_report(result, made, stopped=True).page
            yield Notice(f"The test failed after {len(made)} of {len(shots)} images; {page} shows those.")
        raise
    yield write_report(result, made, stopped=len(made) < len(shots))


def _shown(points: Sequence[SavedPoint], found: Findings, most: int) -> list[SavedPoint]:
    """The files on the way that are worth pictures: the best by what was measured, or some evenly spread."""
    best = ranked_files(list(found.cells.values()))
    names = [name for name in best if any(point.path.name == name for point in points)][:most]
    if not names:
        most = min(most, len(points))
        names = [points[round(i * (len(points) - 1) / max(most - 1, 1))].path.name for i in range(most)]
    return [point for point in points if point.path.name in names]


def _render(
    host: Host, shots: Sequence[Shot], plan: TestPlan, output: Path, token: CancelToken
) -> Iterator[TestedImage]:
    """Make and save the pictures, those that differ in the seed only together."""
    done = 0
    for group in alike(shots):
        if token.cancelled:
            return
        made = generate_all(host, [shot.request(plan.request) for shot in group])
        for shot, generated in zip(group, made, strict=True):
            target = output / "images" / f"{shot.stem}.png"
            save_picture(generated, target)
            done, prompt = done + 1, generated.request.prompt
            yield TestedImage(done, len(shots), shot, generated.image, generated.infotext, prompt, target)


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


def generate_all(host: Host, requests: Sequence[GenerateRequest]) -> Iterator[GeneratedImage]:
    """The pictures of the requests; in one go where the host can."""
    many: Callable[[Sequence[GenerateRequest]], list[GeneratedImage]] | None = getattr(host, "generate_many", None)
    if many is not None:
        yield from many(requests)
        return
    for request in requests:
        yield host.generate(request)


def save_picture(generated: GeneratedImage, path: Path) -> None:
    """Save as PNG with its infotext, so that the WebUI's PNG Info tab reads it."""
    from PIL.PngImagePlugin import PngInfo

    chunks = PngInfo()
    chunks.add_text("parameters", generated.infotext)
    with replaced(path) as temporary:
        generated.image.save(temporary, format="PNG", pnginfo=chunks)
