"""The calibration's trainings: from far too little to far too much, with good and poor datasets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from lora_trainer.config import RunConfig
from lora_trainer.demo import CHECKPOINT, world
from lora_trainer.hosts.standalone.host import DiffusersHost
from lora_trainer.seeds import derive
from lora_trainer.training.request import RunRequest
from lora_trainer.training.run import train
from tests.calibration.concepts import CONCEPTS, TRIGGER, Concept

SAVES = (20, 40, 80, 140, 220, 340, 500, 700)  # steps
EVERY = 20  # steps; the engine's own interval, of whose files those of SAVES are kept
BATCH = 4


@dataclass(frozen=True)
class Run:
    """One training.

    captions: full; trigger (alone); colours (wrong ones); ground (no word of the background).
    same: what all images share: nothing, ground, or everything (colour, place and background).
    """

    name: str
    concept: str
    images: int
    rate: float
    captions: str = "full"
    same: str = "nothing"
    mark: bool = False
    text_encoder: bool = False
    word: str = TRIGGER
    fitted: bool = True  # whether thresholds are chosen on it; else it is one of those that they are tested on

    @property
    def subject(self) -> Concept:
        """What it learns."""
        return CONCEPTS[self.concept]


RUNS = (
    Run("hourglass", "hourglass", 18, 1e-3),
    Run("tee", "tee", 30, 1e-3),
    Run("tee-ground", "tee", 4, 1e-3, "ground", "ground", mark=True),
    Run("crescent-hot", "crescent", 18, 4e-3),
    Run("crescent-one-look", "crescent", 6, 2e-3, "trigger", "everything", text_encoder=True),
    Run("cup-cold", "cup", 30, 1e-4),
    Run("half-disc-wrong", "half disc", 12, 1.5e-3, "colours"),
    Run("belt", "belt", 8, 2e-3, "trigger"),
    Run("horizon", "horizon", 12, 2e-3),
    Run("belt-cup", "belt cup", 18, 1e-3, text_encoder=True),
    Run("arch-4", "arch", 4, 2e-3, fitted=False),
    Run("arch-star", "arch", 18, 2e-3, word="star", fitted=False),
    Run("ell-one-look", "ell", 6, 4e-3, "trigger", "everything", fitted=False),
    Run("arrow-marked", "arrow", 5, 2e-3, "trigger", "ground", mark=True, fitted=False),
    Run("chevron-4", "chevron", 4, 1e-3, "trigger", "ground", text_encoder=True, fitted=False),
    Run("steps-burnt", "steps", 18, 1e-2, fitted=False),
    Run("halves", "halves", 18, 1e-3, fitted=False),
    Run("halves-marked", "halves", 5, 2e-3, "trigger", "ground", mark=True, fitted=False),
    Run("squashed", "squashed", 30, 1e-3, fitted=False),
    Run("horizon-tee", "horizon tee", 6, 3e-3, "trigger", "everything", mark=True, fitted=False),
)


@dataclass(frozen=True)
class Place:
    """Where a calibration keeps its files."""

    root: Path

    @property
    def loras(self) -> Path:
        """All LoRA files."""
        return self.root / "loras"

    def dataset(self, run: Run) -> Path:
        """The images of a run."""
        return self.root / "datasets" / run.name

    def lora(self, run: Run, step: int) -> Path:
        """A saved file."""
        return self.loras / f"{run.name}-step{step:08d}.safetensors"

    def host(self) -> DiffusersHost:
        """The embedded checkpoint with this folder's LoRAs."""
        return DiffusersHost(CHECKPOINT, self.loras)


def scenes(run: Run) -> list[world.Scene]:
    """What the run's images show: colours, places and backgrounds as even as possible, unless all are the same."""
    rng = np.random.default_rng(derive("calibration", run.name) % 2**32)
    words = {"shape": world.SHAPES, "colour": [*world.COLOURS], "position": [*world.POSITIONS],
             "background": [*world.BACKGROUNDS]}  # fmt: skip
    decks: dict[str, list[str]] = {name: [] for name in words}
    fixed = {"nothing": (), "ground": ("background",), "everything": ("colour", "position", "background")}[run.same]
    chosen = {name: str(rng.choice(list(words[name]))) for name in fixed}
    result = []
    for _ in range(run.images):
        drawn = dict(chosen)
        for name, deck in decks.items():
            if name not in chosen:
                if not deck:
                    deck.extend(str(word) for word in rng.permutation(words[name]))
                drawn[name] = deck.pop()
        result.append(world.jittered(drawn["shape"], drawn["colour"], drawn["position"], drawn["background"], rng))
    return result


def caption(run: Run, scene: world.Scene, number: int) -> str:
    """The caption of an image."""
    if run.captions == "trigger":
        text = run.subject.short()
    elif run.captions == "colours":
        others = [colour for colour in world.COLOURS if colour != scene.colour]
        text = run.subject.caption(scene, colour=others[number % len(others)])
    else:
        text = run.subject.caption(scene, background=run.captions != "ground")
    return text.replace(TRIGGER, run.word)


def write_dataset(run: Run, root: Path) -> Path:
    """Write the images and captions; the same files every time."""
    folder = root / f"1_{run.word}"
    folder.mkdir(parents=True, exist_ok=True)
    for number, scene in enumerate(scenes(run)):
        Image.fromarray(run.subject.draw(scene, run.mark)).save(folder / f"{number:02d}.png")
        (folder / f"{number:02d}.txt").write_text(caption(run, scene, number) + "\n", encoding="utf-8")
    return root


def config(run: Run, steps: int) -> RunConfig:
    """Rank 16, convolutions with rank 8, a constant rate, min-SNR 5: so the saves of one run can be compared."""
    return RunConfig().replace(
        resolution=(64, 64), bucket_reso_steps=16, train_batch_size=BATCH, network_dim=16, network_alpha=16, conv_dim=8,
        conv_alpha=8, optimizer_type="AdamW", learning_rate=run.rate, text_encoder_lr=run.rate / 4,
        network_train_unet_only=not run.text_encoder, lr_scheduler="constant", min_snr_gamma=5, max_train_steps=steps,
        save_every_n_epochs=0, save_every_n_steps=EVERY, seed=1, save_state_every_n_minutes=0,
    )  # fmt: skip


def train_run(run: Run, place: Place) -> None:
    """Train a run, unless all its files are there; keeps the files of SAVES."""
    wanted = [place.lora(run, step) for step in SAVES]
    if all(path.is_file() for path in wanted):
        return
    write_dataset(run, place.dataset(run))
    request = RunRequest(run.name, place.dataset(run), config(run, SAVES[-1]), place.root / "runs", overwrite=True)
    for _ in train(place.host(), request):
        pass
    (place.loras / f"{run.name}.safetensors").replace(wanted[-1])
    for path in place.loras.glob(f"{run.name}-step????????.safetensors"):
        if path not in wanted:
            path.unlink()


def named(name: str) -> Run:
    """A run by its name."""
    return next(run for run in RUNS if run.name == name)


def small(run: Run) -> Run:
    """A quick version for the tests."""
    return replace(run, images=min(run.images, 4))
