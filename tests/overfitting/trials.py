"""The trainings: subjects of few images, each trained for the same steps with each method."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_trainer.training.events import Saved
from lora_trainer.training.request import RunRequest
from lora_trainer.training.run import train
from tests.calibration.runs import Place, Run, config, write_dataset

STEPS = (150, 400)  # saves: about enough, and too many
SEEDS = (1, 2, 3)

RUNS = (  # what people bring: few images, and captions that say little
    Run("hourglass-15", "hourglass", 15, 2e-3),
    Run("arch-15", "arch", 15, 2e-3, "trigger"),
    Run("tee-6", "tee", 6, 2e-3, "ground", "ground", mark=True),
    Run("cup-10", "cup", 10, 2e-3, "trigger", "ground", text_encoder=True),
    Run("arrow-5", "arrow", 5, 2e-3, "trigger", "ground", mark=True),
    Run("crescent-6", "crescent", 6, 2e-3, "trigger", "everything", text_encoder=True),
)
CLASSES = {  # the known shape that each is a kind of, as "man" is of a person
    "hourglass": "triangle", "arch": "ring", "tee": "cross", "cup": "square", "arrow": "triangle", "crescent": "circle",
}  # fmt: skip


@dataclass(frozen=True)
class Method:
    """A way against overfitting: its name in the table, and the options that it is."""

    name: str
    label: str
    options: dict[str, Any]

    def of(self, run: Run) -> dict[str, Any]:
        """The options for a run."""
        classed = {"preservation_class": CLASSES[run.concept]} if "diff_output_preservation" in self.options else {}
        return self.options | classed


EMA = Method("ema", "EMA (0.99)", {})  # saved beside the plain training
PLAIN = Method("plain", "none", {"ema_decay": 0.99})
METHODS = (
    PLAIN,
    Method("preservation", "differential output preservation (1)", {"diff_output_preservation": 1.0}),
    Method("dropout", "caption dropout (0.1)", {"caption_dropout_rate": 0.1}),
    Method("offset", "noise offset (0.05)", {"noise_offset": 0.05}),
    Method("tlora", "T-LoRA (half of the ranks)", {"algo": "tlora"}),
    Method("pivotal", "pivotal tuning", {"pivotal_tuning": True}),
)


@dataclass(frozen=True)
class Trial:
    """One training."""

    run: Run
    method: Method
    seed: int

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.run.name}-{self.method.name}-{self.seed}"

    def averaged(self) -> Trial:
        """The moving average of this training, as a trial of its own."""
        return Trial(self.run, EMA, self.seed)


def trials() -> list[Trial]:
    """All of them, in an order that has something of everything when it is ended early."""
    return [Trial(run, method, seed) for seed in SEEDS for run in RUNS for method in METHODS]


def train_trial(trial: Trial, place: Place) -> None:
    """Train it, unless its files are there."""
    products = [trial, trial.averaged()] if trial.method is PLAIN else [trial]
    wanted = [file(place, one, step) for one in products for step in STEPS]
    if all(path.is_file() for path in wanted):
        return
    (place.root / "kept").mkdir(parents=True, exist_ok=True)
    dataset = place.root / "datasets" / trial.run.name
    write_dataset(trial.run, dataset)
    options = config(trial.run, STEPS[-1]).replace(
        save_every_n_steps=STEPS[0], seed=trial.seed, measure_at_saves=False, **trial.method.of(trial.run)
    )
    request = RunRequest(trial.name, dataset, options, place.root / "runs", overwrite=True)
    for event in train(place.host(), request):
        if isinstance(event, Saved) and event.step in STEPS:
            of = trial.averaged() if event.path.stem.endswith("-ema") else trial
            event.path.replace(file(place, of, event.step))
    for left in place.loras.glob(f"{trial.name}*.safetensors"):
        left.unlink()


def file(place: Place, trial: Trial, step: int) -> Path:
    """A saved LoRA."""
    return place.root / "kept" / f"{trial.name}-{step}.safetensors"
