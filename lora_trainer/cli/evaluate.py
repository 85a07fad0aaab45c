"""``test``"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lora_trainer.cli.terminal import ProgressBar, duration, say, stop_on_signals
from lora_trainer.errors import ConfigError
from lora_trainer.evaluation.lora_file import read_metadata, read_resolution, read_trigger
from lora_trainer.evaluation.prompts import parse_strengths, read_prompts
from lora_trainer.evaluation.publish import publish_card
from lora_trainer.evaluation.sweep import TestedImage, TestFinished, TestPlan, test_lora
from lora_trainer.hosts.base import GenerateRequest
from lora_trainer.safetensors_file import whole_number
from lora_trainer.training.events import CancelToken, Notice

if TYPE_CHECKING:
    from lora_trainer.families import PredictionType
    from lora_trainer.hosts.base import Host


def run_test(args: argparse.Namespace) -> None:
    """Test a LoRA file."""
    from lora_trainer.hosts.standalone.host import DiffusersHost

    metadata = read_metadata(args.lora)
    plan = default_plan(args.lora, args.trigger)
    if args.strengths:
        try:
            plan = replace(plan, strengths=parse_strengths(args.strengths))
        except ValueError as error:
            raise ConfigError(f"--strengths: {error}.") from None
    if args.prompts:
        plan = replace(plan, integration=read_prompts(args.prompts, args.lora.stem, plan.trigger))
    if args.seeds:
        plan = replace(plan, seeds=tuple(dict.fromkeys(args.seeds)))
    if args.steps is not None:
        if args.steps < 1:
            raise ConfigError(f"--steps can't be {args.steps}; give at least 1.")
        plan = replace(plan, request=replace(plan.request, steps=args.steps))
    if args.size:
        width, height = parse_size(args.size)
        plan = replace(plan, request=replace(plan.request, width=width, height=height))
    plan = replace(plan, epochs=not args.no_epochs)
    token = CancelToken()
    with stop_on_signals(token):
        host = DiffusersHost(
            args.checkpoint,
            args.lora.parent,
            vae=args.vae,
            prediction_type=trained_prediction(metadata),
            clip_skip=whole_number(metadata.get("ss_clip_skip", ""), 12) or 1,
            zero_terminal_snr=True if metadata.get("ss_zero_terminal_snr") == "True" else None,
        )
        test_and_tell(host, args.lora, (args.output or Path("output")) / args.lora.stem, token, plan)


def trained_prediction(metadata: Mapping[str, str]) -> PredictionType | None:
    """v_prediction for a LoRA that says it was trained so; else None, which asks the checkpoint."""
    said = metadata.get("modelspec.prediction_type", "").lower()
    return "v_prediction" if said in ("v", "v_prediction", "v-prediction") else None


def parse_size(text: str) -> tuple[int, int]:
    """Read ``512`` or ``512,768`` or ``512x768`` as width and height.

    Raises:
        ConfigError: if it isn't one, or a side isn't a multiple of 8 from 64 on.
    """
    numbers = [int(part) if part.strip().isdigit() else 0 for part in re.split("[,x]", text)]
    if len(numbers) not in (1, 2) or any(number < 64 or number % 8 for number in numbers):
        raise ConfigError(f"--size can't be {text!r}; give width,height in multiples of 8, at least 64.")
    return numbers[0], numbers[-1]


def default_plan(lora: Path, trigger: str | None = None) -> TestPlan:
    """The plan for a LoRA file: trigger and size from what it says of itself."""
    size = read_resolution(lora) or (0, 0)
    return TestPlan(
        trigger=read_trigger(lora) if trigger is None else trigger,
        request=GenerateRequest("", width=size[0], height=size[1]),
    )


def test_and_tell(
    host: Host, lora: Path, folder: Path, token: CancelToken, plan: TestPlan | None = None
) -> TestFinished:
    """Test with progress on the terminal; says where the pages are."""
    progress, started = ProgressBar(), time.monotonic()
    finished: TestFinished | None = None
    pictures: list[TestedImage] = []
    for event in test_lora(host, lora, plan or default_plan(lora), folder, token):
        if isinstance(event, TestedImage):
            pictures.append(event)
            progress.update("Test image", event.done, event.total)
        elif isinstance(event, Notice):
            progress.note(f"Note: {event.text}")
        else:
            finished = event
    progress.clear()
    assert finished is not None  # its last event
    for notice in publish_card(lora, host.info().family, finished.report, pictures).notices:
        say(f"Note: {notice}")
    how = "stopped after" if finished.stopped else "done:"
    say(f"Test {how} {finished.images} images in {duration(time.monotonic() - started)}.")
    say(f"Report: {finished.page}")
    for grid in finished.grids:
        say(f"Grid: {grid}")
    return finished
