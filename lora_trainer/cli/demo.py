"""``demo``: the whole way on the embedded checkpoint, from a dataset to the page that shows the result."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

from lora_trainer import demo
from lora_trainer.cli.evaluate import test_and_tell
from lora_trainer.cli.terminal import duration, say, status_after, stop_on_signals
from lora_trainer.cli.train import Places, open_host, train_and_tell
from lora_trainer.demo.dataset import INTEGRATION_PROMPTS, KNOWN_PROMPTS, STRENGTH_PROMPT, TRIGGER, write_dataset
from lora_trainer.evaluation.plan import TestPlan, read_plan
from lora_trainer.evaluation.prompts import Prompt
from lora_trainer.kohya import load_config
from lora_trainer.training.events import CancelToken

NAME = "zorbo"  # of the LoRA
CFG_SCALE = 4.0  # the tiny checkpoint was made for less guidance than large ones: at 7 it exaggerates


def run_demo(args: argparse.Namespace) -> int:
    """Draw the dataset, train, test; each part is what the other commands do. Gives the exit status."""
    started, token = time.monotonic(), CancelToken()
    config = load_config(demo.SETTINGS).config
    dataset = write_dataset(args.output / "dataset")
    places = Places(demo.CHECKPOINT, dataset, NAME, args.output, args.output / "lora", None)
    say(f"The embedded checkpoint knows a small world, but not what a {TRIGGER} is; it learns that from {dataset}")
    with stop_on_signals(token) as came:
        host = open_host(places, config)
        reader = train_and_tell(host, places, config, token, overwrite=True)
        lora = reader.finished.path if reader.finished else None
        if lora is None or token.cancelled:
            return status_after(came)
        finished = test_and_tell(host, lora, args.output / NAME, token, demo_plan(lora))
    say(f"All this took {duration(time.monotonic() - started)}. Open {finished.page} in a browser.")
    return status_after(came)


def demo_plan(lora: Path) -> TestPlan:
    """The concept with words that the dataset hasn't put together, and known things that must stay what they are."""
    prompts = (*INTEGRATION_PROMPTS[:2], *KNOWN_PROMPTS[:2])
    plan = read_plan(lora, {})
    return replace(
        plan,
        request=replace(plan.request, cfg_scale=CFG_SCALE),
        strength_prompt=Prompt(f"{{lora}} {STRENGTH_PROMPT}"),
        integration=tuple(Prompt(f"{{lora}} {prompt}") for prompt in prompts),
    )
