"""How much a training has learned, and how much it has damaged, at every save: what to look at instead of the loss.

The gain on a few training images and the drift of predictions without the trigger are those of the test
(:mod:`lora_trainer.measures`), with fewer images: a save costs about as much as a dozen steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lora_trainer.config import RunConfig, SaveConfig
from lora_trainer.errors import first_line, memory_problem
from lora_trainer.hosts.base import TakenModel
from lora_trainer.measures.denoising import DRIFT_CAP, DRIFT_TIMESTEPS, GAIN_TIMESTEPS, Pictures, Rows, drift, log_ratio
from lora_trainer.measures.interval import Estimate, bootstrap
from lora_trainer.measures.probe import Probe
from lora_trainer.measures.sampling import sample
from lora_trainer.network.attaching import attached
from lora_trainer.network.network import LoraNetwork
from lora_trainer.subjects import usual_subject
from lora_trainer.training.events import Event, Learned, Notice, Preparing
from lora_trainer.training.feed import Feed
from lora_trainer.training.folder import RunFolder
from lora_trainer.training.precision import autocast

IMAGES, KNOWN = 4, 4  # training images, and the base model's own pictures of other things
PATIENCE = 2  # saves in a row whose drift is over the cap


class Learning:
    """Measures a run. What goes wrong here is told once, and the run goes on without.

    Args:
        on: whether there will be something to measure: see :func:`worthwhile`.
    """

    def __init__(self, model: TakenModel, feed: Feed, folder: RunFolder, config: RunConfig, on: bool) -> None:
        self.model, self.feed, self.folder, self.config, self.on = model, feed, folder, config, on
        self.probe = Probe(model, config.caption.clip_skip, config.caption.max_token_length)
        self.items, self.held_out = (feed.dataset.of_one_size(IMAGES, held_out) for held_out in (False, True))
        self.known_texts = usual_subject(model.info.resolution).class_prompts()[:KNOWN]
        self.images: Rows | None = None
        self.others: Rows | None = None  # the held-out images
        self.known: Rows | None = None
        self.base: dict[str, Tensor] = {}
        self.over = 0  # saves in a row that were over the cap

    @property
    def damaged(self) -> bool:
        """Whether the run should end, as ``stop_on_damage`` says."""
        return self.config.save.stop_on_damage and self.over >= PATIENCE

    def encode(self) -> Iterator[Event]:
        """Encode what will be asked, before the text encoders are sent away."""
        yield from self._trying(self._encode)

    def begin(self) -> Iterator[Event]:
        """What the base model does; with the images' latents at hand."""
        if self.on:
            yield Preparing("measuring the base model", 0, 1)
            yield from self._trying(self._begin)
            yield Preparing("measuring the base model", 1, 1)
        elif self.held_out:
            yield Notice(
                "Images are held out, but nothing is measured of them: there is no save on the way, or "
                "measure_at_saves is off."
            )

    def measure(self, network: LoraNetwork, step: int, epoch: int) -> Iterator[Event]:
        """What the LoRA does now."""
        yield from self._trying(lambda: self._measure(network, step, epoch))

    def _trying(self, work: Callable[[], list[Event]]) -> Iterator[Event]:
        if not self.on:
            return
        try:
            beneath, precision = attached(self.feed.captions.beneath), self.config.memory.mixed_precision
            with torch.no_grad(), beneath, autocast(self.model.device, precision):
                found = work()
        except Exception as error:
            self.on = False
            yield Notice(f"What it has learned isn't measured: {memory_problem(error) or first_line(error)}")
            return
        yield from found

    def _encode(self) -> list[Event]:
        self.probe.encode(["", *self.known_texts, *map(self.feed.caption, (*self.items, *self.held_out))])
        return []

    def _begin(self) -> list[Event]:
        side = self.model.info.resolution // 8
        known = sample(self.probe, self.known_texts, (4, side, side), "known")
        self.known = Rows.of(Pictures(known, self.known_texts, "known"), DRIFT_TIMESTEPS)
        self.images = self._rows(self.items, "images") if len(self.items) > 1 else None
        self.others = self._rows(self.held_out, "held out") if self.held_out else None
        self.base = self._ask()
        return []

    def _rows(self, items: list[int], name: str) -> Rows:
        latents = torch.stack([self.feed.latent(item) for item in items])
        return Rows.of(Pictures(latents, tuple(map(self.feed.caption, items)), name), GAIN_TIMESTEPS)

    def _measure(self, network: LoraNetwork, step: int, epoch: int) -> list[Event]:
        assert self.known is not None
        with self.probe.using(network, step):
            now = self._ask()
        moved = drift(self.base["known"], now["known"]).view(self.known.shape).mean(1)
        found = bootstrap(moved.numpy(), lambda part: float(part.mean()))
        self.over = self.over + 1 if found.value > DRIFT_CAP else 0
        gain, held_out = (
            _three(log_ratio(self.base[name], now[name])) if name in now else None for name in ("images", "held out")
        )
        learned = Learned(step, epoch, gain, _three(found), held_out)
        self.folder.append_learned(learned)
        if not self.damaged:
            return [learned]
        reason = Notice(
            f"Stopped after step {step}: at {PATIENCE} saves in a row, predictions without the trigger had moved by "
            f"more than {DRIFT_CAP:.0%} ({found.value:.0%} now). Use an earlier save, or train with a lower rate."
        )
        return [learned, reason]

    def _ask(self) -> dict[str, Tensor]:
        assert self.known is not None
        rows = {"images": self.images, "held out": self.others}
        errors = {name: one.errors(self.probe) for name, one in rows.items() if one is not None}
        return {"known": self.known.outputs(self.probe), **errors}


def worthwhile(save: SaveConfig, steps: int, epochs: int) -> bool:
    """Whether it is wanted, and files are saved on the way: one point is no curve."""
    by_epoch = 0 < save.save_every_n_epochs < epochs
    by_step = 0 < save.save_every_n_steps < steps
    return save.measure_at_saves and (by_epoch or by_step)


def _three(estimate: Estimate) -> tuple[float, float, float]:
    return round(estimate.value, 5), round(estimate.low, 5), round(estimate.high, 5)
