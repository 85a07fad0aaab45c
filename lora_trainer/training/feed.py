"""From samples of the epoch's plan to tensors for the UNet; fills the caches before the first step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from lora_trainer.config import RunConfig
from lora_trainer.config.checks import varied_but_cached
from lora_trainer.dataset.batches import Batch, Sample, batches_per_epoch, steps_per_epoch
from lora_trainer.dataset.captions import is_varied
from lora_trainer.dataset.images import LoadedImage
from lora_trainer.dataset.items import Dataset
from lora_trainer.dataset.masks import mask_key
from lora_trainer.dataset.uses import Length, Use, in_order, use_pixels, use_text
from lora_trainer.dataset.weighted import plain_text
from lora_trainer.errors import ConfigError, shown
from lora_trainer.hosts.base import Conditioning, Part, TakenModel
from lora_trainer.training.cache import CaptionCache, EncodedImage, LatentCache, LoadLater
from lora_trainer.training.class_captions import ClassCaptions, both
from lora_trainer.training.events import Event
from lora_trainer.training.inputs import StepInputs
from lora_trainer.training.objective import Objective
from lora_trainer.training.processes import Processes
from lora_trainer.training.store import TensorStore

if TYPE_CHECKING:
    from lora_trainer.network.network import LoraNetwork
    from lora_trainer.training.folder import RunFolder

MOST_VARIED = 1 << 20  # uses of a run up to which every caption is written out beforehand


class Feed:
    """Prepares micro-batches. With caches on, neither VAE nor text encoder runs after :meth:`fill`."""

    def __init__(
        self,
        model: TakenModel,
        dataset: Dataset,
        objective: Objective,
        config: RunConfig,
        seed: int,
        steps: int,
        epochs: int,
        processes: Processes,
        folder: RunFolder,
        classes: ClassCaptions | None = None,
        beneath: Sequence[LoraNetwork] = (),
    ) -> None:
        self.model, self.dataset, self.objective, self.classes = model, dataset, objective, classes
        self.config, self.seed = config, seed
        self.steps, self.epochs, self.processes, self._folder = steps, epochs, processes, folder
        self.changed: list[str] = []  # files that were, since this was last looked at
        self._stamps: dict[int, tuple[int, int]] = {}  # by image
        batches = batches_per_epoch(dataset, processes.world)
        self.groups_per_epoch = steps_per_epoch(batches, config.optimizer.gradient_accumulation_steps)
        memory = config.memory
        for subset in dataset.subsets:  # the run's own options were compared before
            for sentence in varied_but_cached(subset.config, memory):
                raise ConfigError(f"{subset.name}: {sentence}")
        # these change the pixels at every use
        fixed = not any(folder.config.color_aug or folder.config.random_crop for folder in dataset.folders)
        self.latents_cached = memory.cache_latents and fixed
        largest = max(folder.config.train_batch_size for folder in dataset.folders)
        uses = min(
            epochs * (dataset.train_samples + dataset.reg_samples),
            steps * largest * processes.world * config.optimizer.gradient_accumulation_steps,
        )
        self.varied = any(is_varied(folder.caption) for folder in dataset.folders)
        countable = uses <= MOST_VARIED or not self.varied
        self.captions_cached = memory.cache_text_encoder_outputs and not config.tunes_text and countable
        latents = self._store("latents", memory.cache_latents_to_disk) if fixed else None
        self.latents = LatentCache(model, latents, memory.mixed_precision)
        captions = self._store("captions", memory.cache_text_encoder_outputs_to_disk)
        self.captions = CaptionCache(model, captions, config, beneath)

    @property
    def parts(self) -> list[Part]:
        """The parts of the model that a step uses."""
        texts: list[Part] = [] if self.captions_cached else ["text_encoders"]
        return ["unet", *texts] if self.latents_cached else ["unet", "vae", *texts]

    def fill_images(self) -> Iterator[Event]:
        """Encode all images that the run will use, with nothing but the VAE in the accelerator's memory."""
        if self.latents_cached:
            self.model.keep(["vae"])
            wanted = {self._latent_key(index, flip): self._later(index, flip)
                      for index, item in enumerate(self.dataset.pictures)
                      for flip in {False, item.folder.config.flip_aug}}  # fmt: skip
            yield from self.latents.fill(wanted, self.config.memory.vae_batch_size, self.processes)

    def fill_captions(self) -> Iterator[Event]:
        """Encode all captions that the run will use, with nothing but the text encoders there."""
        self.model.keep(["text_encoders"])
        if self.captions_cached:
            yield from self.captions.fill(
                both(self._all_texts(), self.classes), self.processes, self._folder.cache / "captions"
            )

    def inputs(self, samples: Batch, epoch: int, step: int) -> StepInputs:
        """One micro-batch; ``step`` is the number of optimiser steps done (for token warm-up)."""
        encoded = self._images(samples)
        draws = [
            self.objective.draw(image.mean, image.std, self.seed, sample.uid)
            for image, sample in zip(encoded, samples, strict=True)
        ]
        prior = self.config.dataset.prior_loss_weight
        weights = [prior if self.dataset.items[sample.item].is_reg else 1.0 for sample in samples]
        conditioning = self.conditioning(samples, epoch, step)
        sizes = [image.size for image in encoded]
        return StepInputs.of(draws, conditioning, sizes, self._masks(encoded), weights, self.model.device)

    def text(self, sample: Sample, epoch: int, step: int) -> str:
        """The caption of one use: a function of the seed and which use it is."""
        return use_text(self.dataset, Use(sample, epoch, step), self.seed, self.steps)

    def texts(self, samples: Batch, epoch: int, step: int) -> list[str]:
        """Their captions."""
        return [self.text(sample, epoch, step) for sample in samples]

    def class_texts(self, samples: Batch, epoch: int, step: int) -> list[str | None]:
        """Their captions with the class word in place of the trigger word; None for those without it."""
        assert self.classes is not None
        items = [self.dataset.items[sample.item] for sample in samples]
        pairs = zip(self.texts(samples, epoch, step), items, strict=True)
        return [None if item.is_reg else self.classes.caption(text, item.folder.trigger) for text, item in pairs]

    def conditioning(self, samples: Batch, epoch: int, step: int) -> Conditioning:
        """Their captions, encoded; with gradients if the text encoders are trained and gradients are on."""
        return self.encode(self.texts(samples, epoch, step))

    def encode(self, texts: list[str]) -> Conditioning:
        """Captions, encoded; with gradients if the text encoders are trained and gradients are on."""
        if self.captions_cached:
            return self.captions.batch(texts)
        with torch.set_grad_enabled(self.config.tunes_text and torch.is_grad_enabled()):
            return self.captions.encode(texts)

    def latent(self, item: int) -> torch.Tensor:
        """Mean of an image's latents [4, h, w], as it is without augmentation."""
        return self._images([Sample(item, 0, 0, False)])[0].mean

    def caption(self, item: int) -> str:
        """One of an image's captions, without weights."""
        text = self.text(Sample(item, 0, 0, False), 1, 0)
        return plain_text(text) if self.config.caption.weighted_captions else text

    def _images(self, samples: Batch) -> list[EncodedImage]:
        if self.latents_cached:
            return [self.latents[self._latent_key(sample.item, sample.flip)] for sample in samples]
        with torch.autocast(self.model.device.type, enabled=False):  # the VAE chooses its own precision
            return self.latents.encode([self._load(sample.item, sample.flip, sample.uid) for sample in samples])

    def _masks(self, images: list[EncodedImage]) -> torch.Tensor | None:
        if all(image.mask is None for image in images):
            return None
        whole = [torch.ones_like(image.mean[:1]) if image.mask is None else image.mask for image in images]
        return torch.stack(whole).to(self.model.device)

    def _latent_key(self, item: int, flip: bool) -> str:
        image = self.dataset.pictures[item]
        how = image.folder.config
        counts = how.alpha_mask, how.masked_loss, mask_key(image.mask), how.resize_interpolation
        return self.latents.key(image.content_sha256, image.placement, flip, *counts)

    def _later(self, item: int, flip: bool) -> LoadLater:
        return LoadLater(self.dataset.pictures[item].bucket, lambda: self._load(item, flip, 0))

    def _load(self, item: int, flip: bool, uid: int) -> LoadedImage:
        self._compare(item)
        return use_pixels(self.dataset, item, flip, uid, self.seed)

    def _compare(self, item: int) -> None:
        """Note an image whose file has changed since it was last read."""
        path = self.dataset.pictures[item].path
        try:
            found = path.stat()
        except OSError:
            return  # who reads it will say so
        stamp = (found.st_mtime_ns, found.st_size)
        if self._stamps.setdefault(item, stamp) != stamp:
            self._stamps[item] = stamp
            self.changed.append(shown(path.name))

    def _all_texts(self) -> Iterator[tuple[str, str]]:
        """Every caption that the run will use, in order of use, with the words of its image's folder."""
        if not self.varied:
            for index, item in enumerate(self.dataset.items):
                yield self.text(Sample(index, 0, 0, False), 1, 0), item.folder.trigger
            return
        accumulation = self.config.optimizer.gradient_accumulation_steps
        length = Length(self.processes.world, accumulation, self.steps, self.epochs)
        for batch, epoch, done in in_order(self.dataset, length, self.seed):
            for sample in batch:
                yield self.text(sample, epoch, done), self.dataset.items[sample.item].folder.trigger

    def _store(self, what: str, on_disk: bool) -> TensorStore:
        return TensorStore(self._folder.cache / what) if on_disk else TensorStore()
