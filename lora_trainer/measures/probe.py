"""The model with a LoRA file at a strength, or without: what every measure asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch import Tensor

from lora_trainer.hosts.base import Conditioning, SizeConditioning, TakenModel
from lora_trainer.network.network import LoraNetwork
from lora_trainer.seeds import torch_generator
from lora_trainer.training.diffusion import NoiseSchedule

PLACES_AT_ONCE = 4 * 64 * 64  # rows of the UNet times their latents' area: four pictures of 512 px, one of 1024 px


class Probe:
    """Predictions without gradients, of the base model or of a LoRA at a strength.

    Args:
        model: taken; nothing of ours stays on it between two calls.
        clip_skip, max_token_length: as the LoRA was trained.
    """

    def __init__(self, model: TakenModel, clip_skip: int = 1, max_token_length: int = 75) -> None:
        self.model, self.clip_skip, self.max_token_length = model, clip_skip, max_token_length
        self.schedule = NoiseSchedule.from_alphas(model.alphas_cumprod)
        self._networks: dict[Path, LoraNetwork] = {}
        self._texts: dict[tuple[str, object], Conditioning] = {}
        self._network: LoraNetwork | None = None
        self._key: object = None

    def network(self, lora: Path) -> LoraNetwork:
        """The LoRA of a file, read once.

        Raises:
            FileError: if it can't be read or is for another family.
        """
        if lora not in self._networks:
            model = self.model
            found = LoraNetwork.from_file(lora, model.unet, model.text_encoders, model.info).to(model.device)
            self._networks = {lora: found}  # of one file at a time: ten epochs needn't be in memory together
        return self._networks[lora]

    @contextmanager
    def at(self, lora: Path | None, strength: float = 1.0) -> Iterator[None]:
        """With a LoRA at a strength for as long as the block lasts; the base model itself without one or at 0."""
        network = self.network(lora) if lora is not None and strength else None
        with self.using(network, (lora, strength), strength):
            yield

    @contextmanager
    def using(self, network: LoraNetwork | None, key: object, strength: float = 1.0) -> Iterator[None]:
        """The same with a network that is at hand; ``key`` tells its present weights from others."""
        before = self._network, self._key
        self._network, self._key = network, key
        try:
            with torch.no_grad(), network.inference(strength) if network else nullcontext(), network or nullcontext():
                yield
        finally:
            self._network, self._key = before

    def encode(self, texts: Sequence[str]) -> Conditioning:
        """The texts' conditioning, with the LoRA where it changes the text encoder; each text once."""
        changed = self._network and any(m.target.part == "text_encoder" for m in self._network.modules)
        key = self._key if changed else None
        self._texts = {known: made for known, made in self._texts.items() if known[1] in (None, key)}
        for text in dict.fromkeys(texts):
            if (text, key) not in self._texts:
                with torch.no_grad():
                    made = self.model.encode_captions([text], self.max_token_length, self.clip_skip)
                self._texts[text, key] = made
        found = [self._texts[text, key] for text in texts]
        pooled = [one.pooled for one in found if one.pooled is not None]
        return Conditioning(torch.cat([one.context for one in found]), torch.cat(pooled) if pooled else None)

    def predict(self, noisy: Tensor, timesteps: Tensor, texts: Sequence[str]) -> Tensor:
        """The UNet's output [B, 4, h, w] float32 on the CPU for rows that may have a timestep and a text each."""
        made = []
        side = (noisy.shape[-2] * 8, noisy.shape[-1] * 8)
        size = SizeConditioning(side, (0, 0), side)
        at_once = max(1, PLACES_AT_ONCE // (noisy.shape[-2] * noisy.shape[-1]))
        for start in range(0, len(noisy), at_once):
            rows = slice(start, start + at_once)
            conditioning = self.encode(texts[rows])
            part, device = noisy[rows], self.model.device
            with torch.no_grad():
                made.append(self.model.predict(
                    part.to(device), timesteps[rows].to(device), conditioning, [size] * len(part)
                ).cpu())  # fmt: skip
        return torch.cat(made)

    def errors(self, latents: Tensor, noise: Tensor, timesteps: Tensor, texts: Sequence[str]) -> Tensor:
        """Mean squared error of the prediction, [B]; latents and noise [B, 4, h, w], timesteps [B]."""
        predicted = self.predict(self.schedule.add_noise(latents, noise, timesteps), timesteps, texts)
        target = self.schedule.target(latents, noise, timesteps, self.model.info.prediction_type)
        return (predicted - target).square().mean(dim=(1, 2, 3))


def fixed_noise(shape: Sequence[int], *key: int | str) -> Tensor:
    """Noise that is the same for every file and strength that it measures."""
    return torch.randn(tuple(shape), generator=torch_generator("measure", *key))
