"""The plan of a run, made before anything is encoded: what each phase needs, how a step is computed so that it fits.

On an accelerator always, on a processor only where the person sets a limit: there the machine's memory is rarely what
runs out. A plan that can't be made is no reason not to train: out of memory is met when it comes, see
:mod:`lora_trainer.training.shortage`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lora_trainer.config import MemoryConfig
from lora_trainer.dataset.batches import Batch, Sample
from lora_trainer.dataset.items import ImageItem
from lora_trainer.errors import ConfigError, LoraTrainerError, counted, first_line, memory_problem
from lora_trainer.hosts.base import PARTS, Conditioning, Part, SizeConditioning
from lora_trainer.memory import free_bytes, has_own_memory, in_use, release, size_text
from lora_trainer.training.cache import TILES
from lora_trainer.training.events import Event, Notice, Phase, Planned
from lora_trainer.training.inputs import StepInputs
from lora_trainer.training.memory_plan.choosing import Setup, choose, leanest
from lora_trainer.training.memory_plan.counting import Live, StepCost, count_step
from lora_trainer.training.memory_plan.figures import state_bytes
from lora_trainer.training.memory_plan.remedies import Need, remedy, switched_off
from lora_trainer.training.memory_plan.storage import Storage, block_weights, storages
from lora_trainer.training.precision import arithmetic
from lora_trainer.training.step import training_step

if TYPE_CHECKING:
    from lora_trainer.training.session import Session

log = logging.getLogger(__name__)

GB = 2**30
MARGIN_SHARE, MARGIN = 0.08, GB // 4  # of what is free, for what no count shows: workspaces, fragments
SMALL = 256  # pixels of the picture by which the VAE's need is measured


def plan_memory(run: Session) -> Iterator[Event]:
    """Choose how steps are computed, and tell it.

    Raises:
        ConfigError: if nothing fits; names the smallest change that would. Or if the limit can't be meant.
    """
    if run.device.type == "cpu" and not run.config.memory.memory_limit_gb:
        _hold_as_asked(run)
        return
    before, run.recomputed = run.recomputed, []
    try:
        run.plan = _Planning(run).plan()
    except LoraTrainerError:
        raise
    except Exception as error:
        log.info("Planning the memory", exc_info=error)
        run.recomputed = before
        _hold_as_asked(run)
        yield Notice(f"How much memory the run needs isn't known: {memory_problem(error) or first_line(error)}")
        return
    if run.processes.is_main:
        yield run.plan


def _hold_as_asked(run: Session) -> None:
    """Hold the weights as the settings say, without a plan."""
    memory, blocks = run.config.memory, run.model.blocks()
    if memory.base_8bit == "always" or memory.blocks_in_cpu_memory > 0:
        away = blocks[: max(memory.blocks_in_cpu_memory, 0)]
        run.model.hold(blocks if memory.base_8bit == "always" else (), away)


@dataclass(frozen=True)
class _Picture:
    """What the VAE needs for a picture, by a small one."""

    bytes_per_pixel: float
    seconds_per_pixel: float


def _pixels(item: ImageItem) -> int:
    """Those of a batch of such images."""
    return item.bucket[0] * item.bucket[1] * item.folder.config.train_batch_size


class _Planning:
    def __init__(self, run: Session) -> None:
        self.run, self.model, self.config = run, run.model, run.config
        largest = max(run.dataset.items, key=_pixels)
        self.batch = min(largest.folder.config.train_batch_size, len(run.dataset.items))
        self.bucket = largest.bucket

    def plan(self) -> Planned:
        run, parts = self.run, self.run.feed.parts
        picture = self._picture()
        conditioning, captions_peak = self._captions()
        here: list[Part] = ["unet", "text_encoders"] if self.config.tunes_text else ["unet"]
        self.model.keep(here)
        limit, told = self._limit(PARTS if run.device.type == "cpu" else here)
        cost = self._count(conditioning)
        lora = sum(parameter.numel() for parameter in run.update.parameters)
        fixed = self._weights(parts) + lora * (8 + state_bytes(self.config.optimizer))  # weights and gradients in fp32
        everything = self.config.memory.gradient_checkpointing
        ways = self._storages(cost, self.config.memory)
        setup = choose(cost, self.batch, limit - fixed, everything, ways)
        if setup is None:
            cuda, texts = run.device.type == "cuda", self._weights(["text_encoders"])
            chosen = limit == round(self.config.memory.memory_limit_gb * GB)
            off = switched_off(self.config.memory) if has_own_memory(run.device) else ()
            unused = tuple((change, leanest(self._storages(cost, memory), cost)) for change, memory in off)
            least = leanest(ways, cost)
            need = Need(self.config, cost, cuda, fixed, lora, texts, self.bucket, least, chosen, unused)
            raise ConfigError(remedy(need, limit))
        blocks = self.model.blocks()
        run.recomputed = [blocks[cost.blocks[place]] for place in setup.recomputed]
        run.at_once = setup.at_once if setup.at_once < self.batch else 0
        fixed -= setup.storage.saved
        run.room = limit - fixed + 4 * lora  # gradients come during a step
        self._hold(setup.storage, cost, blocks)
        pixels = self.bucket[0] * self.bucket[1]
        together = self.config.memory.vae_batch_size if run.feed.latents_cached else self.batch
        beside = self._weights(["vae"]) if run.feed.latents_cached else fixed
        run.feed.latents.tile = tile = self._tile(picture.bytes_per_pixel * together, limit - beside)
        encoding = round(picture.bytes_per_pixel * together * (min(pixels, tile * tile) if tile else pixels))
        step = setup.peak if run.feed.latents_cached else max(setup.peak, encoding)
        phases = [Phase("training", (fixed + step) / GB, self._seconds(conditioning, setup, cost) * run.steps / 60)]
        if run.feed.captions_cached:
            phases.insert(0, Phase("captions", (self._weights(["text_encoders"]) + captions_peak) / GB))
        if run.feed.latents_cached:
            minutes = picture.seconds_per_pixel * pixels * len(run.dataset.pictures) / 60
            phases.insert(0, Phase("images", (self._weights(["vae"]) + encoding) / GB, minutes))
        text = _sentence(setup, cost, fixed, limit, len(blocks)) + told
        text += f" Images are encoded in pieces of {tile} pixels." if tile else ""
        return Planned(text, round(limit / GB, 6), tuple(map(_rounded, phases)))

    def _tile(self, bytes_per_pixel: float, room: int) -> int:
        """The largest pieces in which images can be encoded; 0 if that is whole, or if nothing helps."""
        sides = [0, *(side for side in TILES if side < max(self.bucket))]
        pixels = self.bucket[0] * self.bucket[1]
        fits = (side for side in sides if bytes_per_pixel * (min(pixels, side * side) if side else pixels) <= room)
        return next(fits, 0)

    def _storages(self, cost: StepCost, memory: MemoryConfig) -> list[Storage]:
        """How the weights can be held. Without memory of its own a device gains nothing by it: only as asked for."""
        weights = block_weights(self.model.blocks(), arithmetic(self.config.memory.mixed_precision))
        unasked = has_own_memory(self.run.device)
        return list(storages([weights[number] for number in cost.blocks], cost.work, memory, unasked))

    def _hold(self, storage: Storage, cost: StepCost, blocks: list[nn.Module]) -> None:
        if storage.in_8_bits or storage.in_cpu:
            in_8_bits = blocks if storage.in_8_bits else []
            self.model.hold(in_8_bits, [blocks[cost.blocks[place]] for place in storage.in_cpu])

    def _limit(self, here: Iterable[Part]) -> tuple[int, str]:
        """Bytes that the run may take, model and all, of which some parts are there; and what there is to say of it."""
        device, wanted = self.run.device, round(self.config.memory.memory_limit_gb * GB)
        free, there = free_bytes(device), in_use(device)
        if free is None or there is None:
            raise RuntimeError(f"{device} doesn't say how much memory is free")
        if wanted > there[1]:
            raise ConfigError(
                f"memory_limit_gb is {wanted / GB:g}, but there are {size_text(there[1])}; give less, or 0 for what is "
                "free."
            )
        most = self._weights(here) + round(free * (1 - MARGIN_SHARE)) - MARGIN
        if wanted > most:
            return most, f" Of the {size_text(wanted)} that it may take, {size_text(most)} are free."
        return wanted or most, ""

    def _weights(self, parts: Iterable[Part]) -> int:
        modules = chain.from_iterable(map(self.model.modules, parts))
        tensors = chain.from_iterable((*module.parameters(), *module.buffers()) for module in modules)
        return sum({tensor.data_ptr() or id(tensor): tensor.nbytes for tensor in tensors}.values())

    @torch.no_grad()
    def _picture(self) -> _Picture:
        self.model.keep(["vae"])
        height, width = (min(side, SMALL) for side in self.bucket)
        pixels, live = torch.zeros(1, 3, height, width, device=self.run.device), Live()
        with live:
            self.model.encode_images(pixels)
        began = time.perf_counter()
        self.model.encode_images(pixels)[0].cpu()
        return _Picture(live.peak() / (height * width), (time.perf_counter() - began) / (height * width))

    def _captions(self) -> tuple[Conditioning, int]:
        """A caption, encoded; and the bytes that it takes beside the text encoders."""
        self.model.keep(["text_encoders"])
        live = Live()
        with torch.no_grad(), live:
            found = self.model.encode_captions([self.run.feed.caption(0)], self._length, self._clip_skip)
        return found, live.peak()

    @property
    def _length(self) -> int:
        return self.run.feed.captions.length

    @property
    def _clip_skip(self) -> int:
        return self.run.feed.captions.clip_skip

    def _count(self, conditioning: Conditioning) -> StepCost:
        """The cost of a step on as many of its images as a forward pass can have at once."""
        weights = [
            tensor for module in (*self.model.modules("unet"), *self.model.modules("text_encoders"))
            for tensor in (*module.parameters(), *module.buffers())
        ]  # fmt: skip
        weights += self.run.update.parameters
        images = self.batch
        while True:
            try:
                compute = partial(self._losses, conditioning, images)
                with self.run.computing(self._samples(images)):
                    return count_step(compute, self.model.blocks(), weights, images, self.model.weights.lends)
            except Exception as error:
                if not memory_problem(error) or images == 1:
                    raise
            images //= 2
            release(self.run.device)

    def _losses(self, conditioning: Conditioning, images: int) -> Tensor:
        if self.config.tunes_text:
            texts = [self.run.feed.caption(0)] * images
            conditioning = self.model.encode_captions(texts, self._length, self._clip_skip)
        elif images > 1:
            pooled = conditioning.pooled
            context = conditioning.context.expand(images, -1, -1)
            conditioning = Conditioning(context, None if pooled is None else pooled.expand(images, -1))
        inputs = self._inputs(conditioning, self._samples(images))
        return training_step(self.model, inputs, self.run.objective).sum()

    @staticmethod
    def _samples(images: int) -> Batch:
        return [Sample(0, 0, number, False) for number in range(images)]

    def _inputs(self, conditioning: Conditioning, samples: Batch) -> StepInputs:
        height, width = self.bucket
        mean = torch.zeros(4, height // 8, width // 8)
        draws = [self.run.objective.draw(mean, mean, self.run.seed, sample.uid) for sample in samples]
        size = SizeConditioning((height, width), (0, 0), (height, width))
        return StepInputs.of(draws, conditioning, [size] * len(samples), None, [1.0] * len(samples), self.run.device)

    def _seconds(self, conditioning: Conditioning, setup: Setup, cost: StepCost) -> float:
        """Of a step, by a forward pass of what is computed at once."""
        images = min(setup.at_once, cost.images)
        with torch.no_grad(), self.run.computing(self._samples(images)):
            began = time.perf_counter()
            self._losses(conditioning, images).item()
            forward = (time.perf_counter() - began) / images
        return 3 * forward * self.batch * setup.work * self.run.accumulation


def _sentence(setup: Setup, cost: StepCost, fixed: int, limit: int, blocks: int) -> str:
    how = ""
    if setup.recomputed:
        some = "All" if len(setup.recomputed) == blocks else f"{len(setup.recomputed)} of"
        how += f" {some} {counted(blocks, 'block')} are recomputed in the backward pass."
    if setup.at_once < cost.images:
        how += f" A batch is computed {counted(setup.at_once, 'image')} at a time."
    if setup.storage.in_8_bits:
        how += " The blocks' weights are held in 8 bits."
    if away := len(setup.storage.in_cpu):
        some = "All" if away == blocks else f"{away} of"
        how += f" {some} {counted(blocks, 'block')} have their weights in CPU memory, which are brought for every use."
    return f"Training needs about {size_text(fixed + setup.peak)} of the {size_text(limit)} that it may take.{how}"


def _rounded(phase: Phase) -> Phase:
    minutes = None if phase.minutes is None else round(phase.minutes, 1)
    return Phase(phase.name, round(phase.gb, 6), minutes)
