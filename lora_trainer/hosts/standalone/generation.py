"""Making pictures: classifier-free guidance around diffusers' schedulers, several pictures at once."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lora_trainer.errors import ConfigError, LoraTrainerError
from lora_trainer.families import PredictionType
from lora_trainer.hosts.base import Conditioning, GenerateRequest, SizeConditioning
from lora_trainer.hosts.standalone.clip import CHUNK
from lora_trainer.hosts.standalone.samplers import Sampler, find_sampler, make_scheduler
from lora_trainer.seeds import torch_generator
from lora_trainer.tokens import tokenise

Encode = Callable[[Sequence[str], int], Conditioning]  # texts, max_token_length
Predict = Callable[[Tensor, Tensor, Conditioning, Sequence[SizeConditioning]], Tensor]


@dataclass(frozen=True)
class Task:
    """A request with its prompt freed of LoRA tags. Tasks with the same ``key`` can be made in one batch."""

    request: GenerateRequest
    prompt: str
    tags: tuple[Any, ...]

    @property
    def max_token_length(self) -> int:
        """75 for each started 75 tokens of the longer of the two prompts."""
        longest = max(len(tokenise(self.prompt)), len(tokenise(self.request.negative_prompt)))
        return CHUNK * max(1, math.ceil(longest / CHUNK))

    @property
    def key(self) -> tuple[Any, ...]:
        """What has to be equal within a batch."""
        r = self.request
        return (self.tags, r.steps, r.cfg_scale, r.sampler, r.width, r.height, self.max_token_length)


def check(request: GenerateRequest) -> Sampler:
    """Refuse what can't be made; the sampler otherwise.

    Raises:
        ConfigError: names the setting, its value and what is possible.
    """
    for name, side in (("width", request.width), ("height", request.height)):
        if side < 64 or side % 8:
            raise ConfigError(f"{name} can't be {side}; choose a multiple of 8 from 64 on.")
    if request.steps < 1:
        raise ConfigError(f"steps can't be {request.steps}; choose at least 1.")
    if not math.isfinite(request.cfg_scale) or request.cfg_scale < 0:
        raise ConfigError(f"cfg_scale can't be {request.cfg_scale}; choose a number from 0 on (1 is no guidance).")
    return find_sampler(request.sampler)


@dataclass(frozen=True)
class Denoiser:
    """What sampling needs of a model: its functions and its noise schedule ᾱ [1000]."""

    encode: Encode
    predict: Predict
    alphas_cumprod: Tensor
    prediction_type: PredictionType
    device: torch.device
    zero_empty_negative: bool  # SDXL was trained with zeros for no text


@torch.no_grad()
def sample_latents(model: Denoiser, tasks: Sequence[Task]) -> Tensor:
    """Latents [N, 4, h, w] float32 of tasks with one key, each from its own seed.

    Raises:
        LoraTrainerError: if they aren't finite.
    """
    request = tasks[0].request
    sampler = check(request)
    scheduler = make_scheduler(sampler, model.alphas_cumprod, model.prediction_type)
    scheduler.set_timesteps(request.steps, device=model.device)
    generators = [torch_generator("picture", task.request.seed) for task in tasks]
    shape = (1, 4, request.height // 8, request.width // 8)
    noise = torch.cat([torch.randn(shape, generator=generator) for generator in generators]).to(model.device)
    latents = noise * scheduler.init_noise_sigma
    predict = _guided(model, tasks)
    accepted = inspect.signature(scheduler.step).parameters
    arguments = {"generator": generators} if "generator" in accepted else {}
    for timestep in scheduler.timesteps:
        output = predict(scheduler.scale_model_input(latents, timestep), timestep)
        latents = scheduler.step(output, timestep, latents, **arguments).prev_sample
    if not bool(torch.isfinite(latents).all()):
        raise LoraTrainerError(
            "The image came out as NaN: the model overflows, or the LoRA does at this strength; try mixed_precision "
            "no or bf16."
        )
    return latents


def _guided(model: Denoiser, tasks: Sequence[Task]) -> Callable[[Tensor, Tensor], Tensor]:
    """The model's output under classifier-free guidance (Ho & Salimans 2022); one half of the work at scale 1."""
    scale, length = tasks[0].request.cfg_scale, tasks[0].max_token_length
    conditioning = model.encode([task.prompt for task in tasks], length)
    if scale != 1:
        negatives = [task.request.negative_prompt for task in tasks]
        conditioning = _join(_without_text(model, negatives, length), conditioning)
    side = (tasks[0].request.height, tasks[0].request.width)
    sizes = [SizeConditioning(side, (0, 0), side)] * len(conditioning.context)

    def predict(latents: Tensor, timestep: Tensor) -> Tensor:
        if scale == 1:
            return model.predict(latents, timestep.expand(len(latents)), conditioning, sizes)
        both = torch.cat([latents, latents])
        without, with_text = model.predict(both, timestep.expand(len(both)), conditioning, sizes).chunk(2)
        return without + scale * (with_text - without)

    return predict


def _without_text(model: Denoiser, negatives: Sequence[str], length: int) -> Conditioning:
    encoded = model.encode(negatives, length)
    if model.zero_empty_negative:
        given = torch.tensor([bool(text) for text in negatives], device=encoded.context.device)
        encoded.context = encoded.context * given[:, None, None]
        encoded.pooled = None if encoded.pooled is None else encoded.pooled * given[:, None]
    return encoded


def _join(first: Conditioning, second: Conditioning) -> Conditioning:
    pooled = None
    if first.pooled is not None and second.pooled is not None:
        pooled = torch.cat([first.pooled, second.pooled])
    return Conditioning(torch.cat([first.context, second.context]), pooled)


def to_image(pixels: Tensor) -> Image.Image:
    """A picture from pixels [3, H, W] in -1…1."""
    rows = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(rows.cpu().numpy()))
