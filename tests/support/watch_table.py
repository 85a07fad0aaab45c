"""How often the watch is wrong: runs with high rates that work and runs that diverge, on the embedded checkpoint.

``python -m tests.support.watch_table`` trains each for sixty steps (about eight minutes on one core), compares every
step with the base model, and then lets the watch see them as a run of sixty and as one of ten thousand steps would have
shown them, with several limits. It prints the tables of docs/watch.md.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lora_trainer.training.watch.health as health
from lora_trainer import demo
from lora_trainer.config import RunConfig
from lora_trainer.demo.dataset import write_dataset
from lora_trainer.errors import TrainingDivergedError
from lora_trainer.hosts.standalone.host import DiffusersHost
from lora_trainer.training.request import RunRequest
from lora_trainer.training.run import train
from lora_trainer.training.watch.baseline import Baseline
from lora_trainer.training.watch.facts import UNKNOWN, Facts, Finding
from lora_trainer.training.watch.health import Watch
from tests.support.tiny_host import make_dataset

STEPS, TAIL, BAD = 60, 15, 1.5  # a run is bad whose last losses are so many times the base model's
LIMITS = ((1.5, 5, 2.0), (2.0, 5, 2.0), (3.0, 3, 2.0), (3.0, 5, 1.5), (3.0, 5, 2.0), (5.0, 5, 2.0), (5.0, 10, 2.0))
SIZES = [(64, 64), (128, 96), (96, 128), (192, 64), (64, 192), (160, 160), (80, 64), (64, 112)]
BASE: dict[str, Any] = {
    "resolution": 64, "network_dim": 8, "network_alpha": 8, "network_train_unet_only": True, "seed": 1,
    "lr_scheduler": "constant", "max_train_steps": STEPS, "save_every_n_epochs": 0, "save_state_every_n_minutes": 0,
    "on_divergence": "stop", "learning_rate": 1e-3,
}  # fmt: skip
RESTARTS = {"lr_scheduler": "cosine_with_restarts", "lr_scheduler_num_cycles": 4}
WARM_UP = {"lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 50}
JUMP = {"lr_scheduler": "piecewise_constant", "lr_scheduler_args": {"step_rules": "0.001:30,1"}}
MANY = {"resolution": 128, "sizes": True}
RUNS: dict[str, dict[str, Any]] = {
    **{f"AdamW, {rate:g}": {"learning_rate": rate}
       for rate in (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 10.0, 1e3, 1e6)},
    "cosine with restarts, 3e-3": {"learning_rate": 3e-3, **RESTARTS},
    "cosine with restarts, 1e-2": {"learning_rate": 1e-2, **RESTARTS},
    "LoRA+ 16, 5e-4": {"learning_rate": 5e-4, "loraplus_lr_ratio": 16.0},
    "LoRA+ 16, 2e-3": {"learning_rate": 2e-3, "loraplus_lr_ratio": 16.0},
    "Prodigy, 1": {"optimizer_type": "Prodigy", "learning_rate": 1.0},
    "Lion, 1e-4": {"optimizer_type": "Lion", "learning_rate": 1e-4},
    "Lion, 1e-3": {"optimizer_type": "Lion", "learning_rate": 1e-3},
    "Adafactor, its own rate": {"optimizer_type": "Adafactor"},
    "SGD, 0.5": {"optimizer_type": "SGD", "learning_rate": 0.5},
    **{f"RMSprop, {rate:g}": {"optimizer_type": "RMSprop", "learning_rate": rate} for rate in (1e-3, 1e-2, 3e-2)},
    "batches of 4, min-SNR, convolutions": {"train_batch_size": 4, "min_snr_gamma": 5, "conv_dim": 8, "conv_alpha": 8},
    "noise offset 0.2": {"noise_offset": 0.2},
    "timesteps from 800": {"min_timestep": 800},
    "timesteps to 100": {"max_timestep": 100},
    "Huber loss": {"loss_type": "huber"},
    "dropout 0.5": {"network_dropout": 0.5},
    "text encoder, too": {"network_train_unet_only": False},
    "8 sizes": MANY,
    "8 sizes, 3e-3": {"learning_rate": 3e-3, **MANY},
    "warm-up to 1": {"learning_rate": 1.0, **WARM_UP},
    "warm-up to 0.1": {"learning_rate": 0.1, **WARM_UP},
    "from 1e-3 to 1 after step 30": {"learning_rate": 1.0, **JUMP},
    "alpha 800 at rank 8": {"network_alpha": 800},
}  # fmt: skip


@dataclass
class Trace:
    """What was seen of a run, every step of it compared with the base model."""

    name: str
    steps: list[Facts]
    nan: bool  # whether it ended in NaN

    @property
    def ratio(self) -> float:
        """Loss of the last steps against the base model's."""
        tail = self.steps[-TAIL:]
        return sum(step.loss for step in tail) / sum(step.baseline for step in tail)

    @property
    def bad(self) -> bool:
        """Whether it diverged."""
        return self.nan or self.ratio > BAD

    def told(self, planned: int) -> tuple[int, Finding] | None:
        """When the watch would have ended it as a run of so many steps, which compares only some of them."""
        watch, baseline = Watch(), Baseline(planned)
        for facts in self.steps:
            compared = baseline.due(facts.step - 1) or watch.suspicious
            seen = replace(facts, seconds=1.0, baseline=facts.baseline if compared else UNKNOWN)
            for finding in watch.look(seen):
                if finding.good is not None:
                    return facts.step, finding
        return None


def trace(name: str, options: dict[str, Any], host: DiffusersHost, root: Path) -> Trace:
    """Train, and write down what the watch would have been told."""
    steps: list[Facts] = []

    def look(self: Watch, facts: Facts) -> Iterator[Finding]:
        steps.append(facts)
        return iter(())

    options = {**BASE, **options}
    data = root / ("sizes" if options.pop("sizes", False) else "data")
    asked = RunRequest("zork", data, RunConfig().replace(**options), root / "out", overwrite=True)
    with patch.object(Watch, "look", look), patch.object(Baseline, "due", lambda self, step: True):
        try:
            for _ in train(host, asked):
                pass
        except TrainingDivergedError:
            return Trace(name, steps, True)
    return Trace(name, steps, False)


def say(text: str = "") -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def by_run(traces: list[Trace]) -> None:
    """A line for each run, with the limits in use."""
    say("| run | loss ÷ base model's at the end | diverges | told after step |\n|---|---|---|---|")
    for one in traces:
        found = one.told(STEPS)
        told = f"{found[0]} ({found[1].kind})" if found else f"{len(one.steps) + 1} (NaN)" if one.nan else "–"
        ratio = f"{one.ratio:.2f}" if not one.nan else "NaN"
        say(f"| {one.name} | {ratio} | {'yes' if one.bad else 'no'} | {told} |")


def by_limits(traces: list[Trace]) -> None:
    """A line for each set of limits: how often it is wrong."""
    good, bad = [one for one in traces if not one.bad], [one for one in traces if one.bad and len(one.steps) > 3]
    say("| FAR | PAIRS | SUSPECT | run of | false alarms | missed | median step of the alarm |")
    say("|---|---|---|---|---|---|---|")
    for far, pairs, suspect in LIMITS:
        with patch.multiple(health, FAR=far, PAIRS=pairs, SUSPECT=suspect):
            for planned in (STEPS, 10_000):
                false = [one.name for one in good if one.told(planned)]
                steps = sorted(found[0] if (found := one.told(planned)) else math.inf for one in bad)
                missed = sum(step == math.inf for step in steps)
                counts = f"{len(false)} of {len(good)} | {missed} of {len(bad)} | {steps[len(steps) // 2]}"
                names = f" <!-- {', '.join(false)} -->" if false else ""
                say(f"| {far:g} | {pairs} | {suspect:g} | {planned:,} | {counts} |{names}")


def main() -> None:
    """Both tables."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_dataset(root / "data")
        make_dataset(root / "sizes", SIZES)
        host = DiffusersHost(demo.CHECKPOINT, root / "loras", device="cpu")
        traces = [trace(name, options, host, root) for name, options in RUNS.items()]
    by_run(traces)
    say()
    by_limits(traces)


if __name__ == "__main__":
    main()
