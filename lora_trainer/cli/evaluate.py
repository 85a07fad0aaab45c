"""``test``"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_trainer.cli.terminal import ProgressBar, duration, leave_stdout, say, status_after, stop_on_signals
from lora_trainer.errors import ConfigError, counted, quoted
from lora_trainer.evaluation.events import Measuring, TestedImage, TestFinished, TestPlanned
from lora_trainer.evaluation.lora_file import read_metadata
from lora_trainer.evaluation.plan import TestPlan, read_plan
from lora_trainer.evaluation.prompts import read_prompts_file
from lora_trainer.evaluation.publish import publish
from lora_trainer.evaluation.sweep import test_lora
from lora_trainer.evaluation.trained import read_run
from lora_trainer.evaluation.unfinished import asked_before
from lora_trainer.safetensors_file import whole_number
from lora_trainer.training.events import CancelToken, Notice

if TYPE_CHECKING:
    from lora_trainer.families import PredictionType
    from lora_trainer.hosts.base import Host


def run_test(args: argparse.Namespace) -> int:
    """Test a LoRA file."""
    from lora_trainer.hosts.standalone.host import DiffusersHost

    metadata = read_metadata(args.lora)
    folder = (args.output or Path("output")) / args.lora.stem
    plan = read_plan(args.lora, asked_before(folder) if args.resume else given_values(args))
    token = CancelToken()
    with stop_on_signals(token) as came:
        host = DiffusersHost(
            args.checkpoint,
            args.lora.parent,
            vae=args.vae,
            prediction_type=trained_prediction(metadata),
            clip_skip=whole_number(metadata.get("ss_clip_skip", ""), 12) or 1,
            zero_terminal_snr=True if metadata.get("ss_zero_terminal_snr") == "True" else None,
        )
        test_and_tell(host, args.lora, folder, token, plan, resume=args.resume)
    return status_after(came)


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
        raise ConfigError(f"--size can't be {quoted(text)}; give width,height in multiples of 8, at least 64.")
    return numbers[0], numbers[-1]


def given_values(args: argparse.Namespace) -> dict[str, Any]:
    """What the command line says of the plan, as a request to the HTTP interface would say it."""
    values: dict[str, Any] = {"epochs": not args.no_epochs, "measures": not args.no_measures}
    for name in ("trigger", "subject", "strengths", "seeds", "steps"):
        if getattr(args, name) is not None:
            values[name] = getattr(args, name)
    if args.prompts:
        values["prompts"] = read_prompts_file(args.prompts)
    if args.size:
        values["width"], values["height"] = parse_size(args.size)
    return values


def verdict_lines(report: Path) -> list[str]:
    """The verdict and the recommendation, for the terminal."""
    found = read_run(report)
    best = found.get("recommended")
    if not isinstance(best, dict):
        return []
    use = f"Use {best['file']} at {best['strength']:g} ({best['sure']})."
    return [f"Verdict: {found['verdict']}. {use}", *(f"  {line}" for line in found["evidence"])]


def test_and_tell(
    host: Host, lora: Path, folder: Path, token: CancelToken, plan: TestPlan | None = None, *, resume: bool = False
) -> TestFinished:
    """Test with progress on the terminal; says where the pages are."""
    from lora_trainer.cli import RunFailedError

    try:
        return _test_and_tell(host, lora, folder, token, plan or read_plan(lora, {}), resume)
    except BrokenPipeError as error:
        leave_stdout()
        raise RunFailedError(f"The output was closed, so the test of {lora.name} was stopped.") from error


def _left(planned: TestPlanned | None, event: Measuring | TestedImage, started: float) -> str:
    """How long the rest of the test will take."""
    seconds = planned.left(planned.share(event), time.monotonic() - started) if planned else None
    return "" if seconds is None else f"{duration(seconds)} left"


def _test_and_tell(
    host: Host, lora: Path, folder: Path, token: CancelToken, plan: TestPlan, resume: bool
) -> TestFinished:
    progress, started = ProgressBar(), time.monotonic()
    finished: TestFinished | None = None
    planned: TestPlanned | None = None
    pictures: list[TestedImage] = []
    for event in test_lora(host, lora, plan, folder, token, resume=resume):
        if isinstance(event, TestPlanned):
            planned = event
            say(event.sentence)
        elif isinstance(event, TestedImage):
            pictures.append(event)
            progress.update("Test image", event.done, event.total, _left(planned, event, started))
        elif isinstance(event, Measuring):
            progress.update("Measuring", event.done, event.total, _left(planned, event, started))
        elif isinstance(event, Notice):
            progress.note(f"Note: {event.text}")
        else:
            finished = event
    progress.clear()
    assert finished is not None  # its last event
    for notice in publish(host, lora, report=finished.report, pictures=pictures):
        say(f"Note: {notice}")
    how = "stopped after" if finished.stopped else "done:"
    say(f"Test {how} {counted(finished.images, 'image')} in {duration(time.monotonic() - started)}.")
    for line in verdict_lines(finished.report):
        say(line)
    say(f"Report: {finished.page}")
    for grid in finished.grids:
        say(f"Grid: {grid}")
    return finished
