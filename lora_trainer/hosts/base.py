"""What the trainer needs from whoever owns the model. A further host implements :class:`Host`; a further WebUI does so
on top of :mod:`lora_trainer.hosts.webui`, which has what all of them share.

A host knows nothing about training. It tells what the model is, lends its parts for the length of a ``with`` block,
encodes images and captions, predicts, and generates images. Everything that it neutralises while the model is taken
is put back when the block ends, whatever happened inside.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from lora_trainer.checkpoint_marks import NO_MARKS, Marks
from lora_trainer.errors import ConfigError, quoted
from lora_trainer.families import SD1, Family, PredictionType

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor, nn

    from lora_trainer.frozen_weights.held import FrozenWeights
    from lora_trainer.training.events import CancelToken

Part = Literal["unet", "vae", "text_encoders"]
PARTS: tuple[Part, ...] = ("unet", "vae", "text_encoders")
Naming = Literal["diffusers", "ldm"]  # how the UNet's modules are named: down_blocks… or input_blocks…


@dataclass(frozen=True)
class ModelInfo:
    """Which model it is: for messages, metadata and cache keys."""

    family: Family
    prediction_type: PredictionType
    naming: Naming
    checkpoint: str  # file name, as shown to the user
    checkpoint_sha256: str  # of the file; "" if the host doesn't know it
    vae: str  # file name of a VAE chosen apart from the checkpoint, else ""
    vae_sha256: str
    vae_fingerprint: str  # of the VAE's weights in use: keys cached latents
    text_fingerprint: str  # of the text encoders' weights and settings in use: keys cached captions
    resolution: int  # native side in pixels: 512, 768, 1024; the embedded default 64
    checkpoint_path: str = ""  # where the file is, if the host knows it
    vae_path: str = ""  # the same of a VAE chosen apart from it


@dataclass(frozen=True)
class Glance:
    """What can be told of the model without waiting, loading or reading weights; ``refusal``: why it can't be used."""

    checkpoint: str
    family: Family = SD1
    resolution: int = 512
    refusal: str = ""
    prediction_type: PredictionType = "epsilon"
    marks: Marks = NO_MARKS
    checkpoint_path: str = ""  # where the file is, if the host knows it


@dataclass(frozen=True)
class TextEncoder:
    """One text encoder that can get a LoRA.

    ``module`` holds the transformer whose paths make the keys: transformers' CLIPTextModel (or its ``text_model``
    owner), or an open_clip text tower. ``prefix`` is kohya's: ``lora_te``, ``lora_te1`` or ``lora_te2``.
    """

    module: nn.Module
    prefix: str
    naming: Literal["transformers", "open_clip"]


@dataclass
class Conditioning:
    """Encoded captions of a batch: ``context`` [B, T, C] and, for SDXL, ``pooled`` [B, P]."""

    context: Tensor
    pooled: Tensor | None = None


@dataclass(frozen=True)
class SizeConditioning:
    """SDXL's size conditioning of one image, each (height, width) or (top, left) in pixels."""

    original: tuple[int, int]
    crop: tuple[int, int]
    target: tuple[int, int]


@dataclass(frozen=True)
class GenerateRequest:
    """One picture to make. ``prompt`` may carry ``<lora:NAME:weight>``."""

    prompt: str
    negative_prompt: str = ""
    seed: int = 0
    steps: int = 20
    cfg_scale: float = 7.0
    sampler: str = "euler_a"
    width: int = 512
    height: int = 512


@dataclass(frozen=True)
class GeneratedImage:
    """A picture with the infotext that reproduces it."""

    image: Image
    request: GenerateRequest
    infotext: str


@dataclass(frozen=True)
class Progress:
    """How far a job is, for the host's own display: steps or pictures, and one line of text."""

    done: int
    total: int
    text: str = ""


@dataclass(frozen=True)
class Described:
    """What a captioner sees in an image: a sentence or tags, as its model was trained to give."""

    sentence: str = ""
    tags: tuple[tuple[str, float], ...] = ()  # with their probabilities, the likeliest first
    names: frozenset[str] = frozenset()  # those of the tags that name a known character


class Captioner(Protocol):
    """A model that describes images, ready to be asked."""

    def describe(self, image: Image) -> Described:
        """What is in an RGB image."""


class TakenModel(Protocol):
    """The model while the trainer holds it. Base weights are frozen and in eval mode."""

    info: ModelInfo
    unet: nn.Module
    text_encoders: Sequence[TextEncoder]
    device: torch.device
    apart: bool  # whether UNet and text encoders are never on the accelerator together (--medvram)
    weights: FrozenWeights  # the UNet's
    alphas_cumprod: Tensor  # [1000] float32 on the CPU, as the checkpoint defines it (before any zero-SNR rescale)

    def encode_images(self, pixels: Tensor, tile: int = 0) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the scaled latents, each [B, 4, H/8, W/8] float32; pixels [B, 3, H, W] in -1…1.

        Sampling is ``mean + std * noise``. Runs without gradients, in the precision that gives finite latents; in
        overlapping pieces of ``tile`` pixels a side, unless that is 0.
        """

    def encode_captions(self, captions: Sequence[str], max_token_length: int, clip_skip: int) -> Conditioning:
        """Encode literal texts (no prompt syntax); differentiable where gradients are enabled."""

    def predict(
        self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, sizes: Sequence[SizeConditioning]
    ) -> Tensor:
        """The UNet's output, float32 [B, 4, h, w]. ``timesteps`` [B] int64; ``sizes`` is used by SDXL only."""

    def modules(self, part: Part) -> list[nn.Module]:
        """What a part consists of, wherever it is at the moment."""

    def blocks(self) -> list[nn.Module]:
        """The UNet's blocks to recompute under gradient checkpointing, in forward order."""

    def keep(self, parts: Collection[Part]) -> None:
        """Have only these parts in the accelerator's memory. Another one comes when something is asked of it, and
        stays until the next call; for a picture all of them come, and what wasn't kept leaves again afterwards."""

    def hold(self, in_8_bits: Collection[nn.Module], in_cpu: Collection[nn.Module]) -> None:
        """Hold the weights of some of :meth:`blocks` in 8 bits or in CPU memory, or in 8 bits in CPU memory, whenever
        the UNet is in the accelerator's memory; until the next call, or until the model is given back."""

    def generate(self, request: GenerateRequest) -> GeneratedImage:
        """Make a picture with whatever hooks are attached (the live LoRA); restores the trained state afterwards."""


class Host(Protocol):
    """Where the model lives."""

    name: str  # "diffusers", "a1111"
    lora_dir: Path  # where finished LoRA files go

    def info(self) -> ModelInfo:
        """What the loaded model is.

        Raises:
            UnsupportedModelError: in one sentence, if it can't be trained.
        """

    def take(self, mixed_precision: str) -> AbstractContextManager[TakenModel]:
        """Lend the model for training; puts everything back on leaving, also after an exception."""

    def generate(self, request: GenerateRequest) -> GeneratedImage:
        """Make a picture outside training, resolving ``<lora:NAME:weight>`` from ``lora_dir``."""

    def check(self, request: GenerateRequest) -> None:
        """Refuse a picture that :meth:`generate` would refuse, as far as that can be told beforehand.

        Raises:
            LoraTrainerError: in one sentence: an unknown sampler, a LoRA that isn't there, an impossible size.
        """

    def refresh_loras(self, changed: Sequence[Path] = ()) -> None:
        """Make new or rewritten files in ``lora_dir`` known, so that the next generation uses their present weights."""

    def defaults(self) -> dict[str, Any]:
        """Options that suit the loaded model and the host's settings, for those that the user gives no value."""

    def checkpoint_dir(self) -> Path | None:
        """The folder in which the host finds checkpoints; None where it was given one file."""

    def refresh_checkpoints(self) -> None:
        """Make new files in :meth:`checkpoint_dir` known."""

    def glance(self) -> Glance | None:
        """What is loaded, for the page: answers at once, also while a job is at work; None if nothing is."""

    def working(self, job: str, token: CancelToken) -> AbstractContextManager[None]:
        """Hold the host for a job: waits for its queue, shows the job; the host's own "interrupt" cancels the token."""

    def between_steps(self, progress: Progress) -> None:
        """Called between two steps, encoded images or pictures of a job: shows progress, serves whoever waits.

        Raises:
            HostBusyError: if somebody took the model away.
        """

    def lent(self) -> AbstractContextManager[None]:
        """Give everything back for as long as the block lasts (a paused job)."""

    def lora_modules(self, path: Path) -> int | None:
        """How many modules of a LoRA file the host applies when it generates; None if it can't tell."""

    def captioners(self) -> dict[str, str]:
        """The captioners that the host brings, by name, each with why it can't be used now; "" where it can."""

    def captioner(self, name: str) -> AbstractContextManager[Captioner]:
        """One of :meth:`captioners`, in memory for as long as the block lasts; inside :meth:`working`.

        Raises:
            LoraTrainerError: in one sentence, if it can't be used.
        """


class SoleUser:
    """The part of :class:`Host` that is empty where nobody else uses the model."""

    def defaults(self) -> dict[str, Any]:
        """Nothing to suggest."""
        return {}

    def checkpoint_dir(self) -> Path | None:
        """None: it was given one file."""
        return None

    def refresh_checkpoints(self) -> None:
        """Nothing to make known."""

    def glance(self) -> Glance | None:
        """Unknown."""
        return None

    def working(self, job: str, token: CancelToken) -> AbstractContextManager[None]:
        """Nobody to wait for."""
        return nullcontext()

    def between_steps(self, progress: Progress) -> None:
        """Nobody to serve."""

    def lent(self) -> AbstractContextManager[None]:
        """Nobody to lend to."""
        return nullcontext()

    def lora_modules(self, path: Path) -> int | None:
        """Unknown."""
        return None

    def captioners(self) -> dict[str, str]:
        """None."""
        return {}

    def captioner(self, name: str) -> AbstractContextManager[Captioner]:
        """None."""
        raise ConfigError(f"There is no captioner {quoted(name)} here.")
