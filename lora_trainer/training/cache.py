"""Encoded images and captions: each is computed once, before the loop, and is keyed by all that it depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import interpolate

from lora_trainer.config import RunConfig
from lora_trainer.errors import LoraTrainerError, TrainingDivergedError, memory_problem
from lora_trainer.files import file_sha256
from lora_trainer.hosts.base import Conditioning, SizeConditioning, TakenModel
from lora_trainer.memory import release
from lora_trainer.network.attaching import attached
from lora_trainer.network.beneath import files_beneath
from lora_trainer.network.network import LoraNetwork
from lora_trainer.training.events import Event, Notice, Preparing
from lora_trainer.training.processes import Processes
from lora_trainer.training.store import TensorStore
from lora_trainer.training.weighted import encode_weighted

if TYPE_CHECKING:
    from torch import Tensor

    from lora_trainer.dataset.images import LoadedImage

CAPTIONS_AT_ONCE = 8  # per call of the text encoder; one by one when there are few, so that grouping can't change bits
FEW_CAPTIONS = 64
TILES = (512, 256)  # pixels of the pieces in which images are encoded where they don't fit whole, largest first
LARGEST_IN_MEMORY = 2 << 30  # bytes of encoded captions; more than this goes to the disk


def digest(*parts: object) -> str:
    """A short key for a cache entry."""
    return hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class EncodedImage:
    """The latent distribution of one image: sampling is ``mean + std * noise``."""

    mean: Tensor  # [4, h, w] float32 on the CPU
    std: Tensor
    mask: Tensor | None  # [1, h, w] in 0…1
    size: SizeConditioning


class LatentCache:
    """Encodes images, at most once each if ``cached``."""

    def __init__(self, model: TakenModel, store: TensorStore | None, precision: str) -> None:
        self.model, self.store, self.precision = model, store, precision
        self.tile = 0  # pixels of the pieces in which images are encoded; 0 for whole

    def key(self, content: str, *how: object) -> str:
        """Key of an image: its bytes, how it is resized, cropped and flipped, and the VAE that encodes it."""
        where = (self.precision, self.model.device.type)
        return digest("latents 3", self.model.info.vae_fingerprint, *where, content, *how)

    def fill(self, wanted: dict[str, LoadLater], batch_size: int, processes: Processes) -> Iterator[Event]:
        """Encode what is missing, equal sizes together; ``wanted`` maps keys to images that can be loaded."""
        assert self.store is not None
        missing = [key for key in wanted if key not in self.store]
        mine = sorted(missing[processes.rank :: processes.world], key=lambda key: wanted[key].size)
        made: list[tuple[str, dict[str, Tensor]]] = []
        for start, keys in _runs(mine, lambda key: wanted[key].size, batch_size):
            if processes.is_main:
                yield Preparing("Encoding images", start * processes.world, len(missing))
            for key, image in zip(keys, self._fitted([wanted[key].load() for key in keys]), strict=True):
                self.store[key] = _pack(image)
                made.append((key, self.store[key]) if processes.world > 1 else (key, {}))
        _share(self.store, made, processes)
        if processes.is_main:
            yield Preparing("Encoding images", len(missing), len(missing))

    def _fitted(self, images: Sequence[LoadedImage]) -> list[EncodedImage]:
        """Encode images of equal size; one by one where memory doesn't suffice for all at once, then in pieces."""
        try:
            return self.encode(images)
        except Exception as error:
            smaller = (self.tile or 2 * TILES[0]) // 2
            if not memory_problem(error) or (len(images) == 1 and smaller < TILES[-1]):
                raise
        release(self.model.device)
        if len(images) == 1:
            self.tile = smaller
        return [encoded for image in images for encoded in self._fitted([image])]

    def encode(self, images: Sequence[LoadedImage]) -> list[EncodedImage]:
        """Encode images of equal size.

        Raises:
            TrainingDivergedError: if the VAE gives NaN or Inf for one of them; names it.
        """
        pixels = torch.stack([image.pixels for image in images]).to(self.model.device)
        try:
            mean, std = (part.float().cpu() for part in self.model.encode_images(pixels, self.tile))
        except LoraTrainerError as error:
            raise TrainingDivergedError(f"{', '.join(image.path.name for image in images)}: {error}") from error
        for image, one in zip(images, mean, strict=True):
            if not torch.isfinite(one).all():
                raise TrainingDivergedError(
                    f"The VAE gives NaN for {image.path.name}; choose another VAE, or run it in fp32 (--no-half-vae)."
                )
        return [
            EncodedImage(m, s, None if i.mask is None else latent_mask(i.mask, m.shape[-2:]), i.size)
            for i, m, s in zip(images, mean, std, strict=True)
        ]

    def __getitem__(self, key: str) -> EncodedImage:
        assert self.store is not None
        return _unpack(self.store[key])


class LoadLater:
    """An image that is read only if its latent isn't there yet."""

    def __init__(self, size: tuple[int, int], load: object) -> None:
        self.size, self._load = size, load

    def load(self) -> LoadedImage:
        """Read it from disk."""
        return self._load()  # type: ignore[operator]


def latent_mask(mask: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Shrink a pixel mask [1, H, W] to the latent's size by area, as sd-scripts does."""
    return interpolate(mask[None], size=tuple(size), mode="area")[0]


class CaptionCache:
    """Encodes captions that the run will need, each distinct text once.

    Args:
        beneath: the networks of ``base_weights``, which belong to the text encoders.
    """

    def __init__(
        self, model: TakenModel, store: TensorStore, config: RunConfig, beneath: Sequence[LoraNetwork] = ()
    ) -> None:
        self.model, self.store, self.beneath = model, store, beneath
        base = config.network
        self._base = [*map(file_sha256, files_beneath(base)), *base.base_weights_multiplier] if beneath else []
        self.length, self.clip_skip = config.caption.max_token_length, config.caption.clip_skip
        self.precision, self.weighted = config.memory.mixed_precision, config.caption.weighted_captions

    def encode(self, texts: Sequence[str]) -> Conditioning:
        """Captions, encoded now; with gradients where they are enabled."""
        encode = partial(encode_weighted, self.model) if self.weighted else self.model.encode_captions
        with attached(self.beneath):
            return encode(texts, self.length, self.clip_skip)

    def key(self, text: str) -> str:
        """Key of a caption: its text, how it is encoded, and the text encoders that encode it."""
        where = (self.precision, self.model.device.type, *(["weighted"] if self.weighted else []), *self._base)
        return digest("captions 2", self.model.info.text_fingerprint, *where, self.length, self.clip_skip, text)

    def fill(self, texts: Iterable[str], processes: Processes, spill: Path) -> Iterator[Event]:
        """Encode the distinct texts that are missing; ``spill`` is the folder for what memory shouldn't hold."""
        wanted = list(dict.fromkeys(texts))
        missing = [text for text in wanted if self.key(text) not in self.store]
        mine = missing[processes.rank :: processes.world]
        at_once = 1 if len(wanted) <= FEW_CAPTIONS else CAPTIONS_AT_ONCE
        made: list[tuple[str, dict[str, Tensor]]] = []
        for start in range(0, len(mine), at_once):
            if processes.is_main:
                yield Preparing("Encoding captions", start * processes.world, len(missing))
            group = mine[start : start + at_once]
            with torch.no_grad():
                encoded = self.encode(group)
            for index, text in enumerate(group):
                entry = {"context": encoded.context[index].cpu()}
                if encoded.pooled is not None:
                    entry["pooled"] = encoded.pooled[index].cpu()
                self.store[self.key(text)] = entry
                made.append((self.key(text), entry if processes.world > 1 else {}))
            if start == 0 and self._too_many(len(wanted), encoded):
                yield Notice(
                    f"{len(wanted)} different captions need more than {LARGEST_IN_MEMORY >> 30} GiB of memory; they "
                    "are kept in "
                    f"{spill}, which may be deleted after the run."
                )
                self.store.move_to(spill)
        _share(self.store, made, processes)
        if processes.is_main:
            yield Preparing("Encoding captions", len(missing), len(missing))

    def _too_many(self, texts: int, encoded: Conditioning) -> bool:
        entry = encoded.context[0].nbytes + (0 if encoded.pooled is None else encoded.pooled[0].nbytes)
        return self.store.directory is None and texts * entry > LARGEST_IN_MEMORY

    def batch(self, texts: Sequence[str]) -> Conditioning:
        """The conditioning of a batch, from the cache, on the model's device."""
        entries = [self.store[self.key(text)] for text in texts]
        context = torch.stack([entry["context"] for entry in entries]).to(self.model.device)
        pooled = [entry["pooled"] for entry in entries if "pooled" in entry]
        return Conditioning(context, torch.stack(pooled).to(self.model.device) if pooled else None)


def _runs(keys: Sequence[str], of: object, most: int) -> Iterator[tuple[int, list[str]]]:
    """Cut a sorted list into runs of equal ``of(key)`` and at most ``most`` entries; gives each with its start."""
    start = 0
    while start < len(keys):
        end = start + 1
        while end < len(keys) and end - start < most and of(keys[end]) == of(keys[start]):  # type: ignore[operator]
            end += 1
        yield start, list(keys[start:end])
        start = end


def _share(store: TensorStore, made: list[tuple[str, dict[str, Tensor]]], processes: Processes) -> None:
    """Give every process what the others made."""
    for key, tensors in processes.gather(made):
        if key not in store:
            store[key] = tensors


def _pack(image: EncodedImage) -> dict[str, Tensor]:
    size = torch.tensor([*image.size.original, *image.size.crop, *image.size.target])
    entry = {"mean": image.mean, "std": image.std, "size": size}
    return entry if image.mask is None else {**entry, "mask": image.mask}


def _unpack(entry: dict[str, Tensor]) -> EncodedImage:
    a, b, c, d, e, f = entry["size"].tolist()
    return EncodedImage(entry["mean"], entry["std"], entry.get("mask"), SizeConditioning((a, b), (c, d), (e, f)))
