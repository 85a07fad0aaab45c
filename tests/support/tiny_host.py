"""A host without files: a tiny random UNet and text encoder, and an image encoder that only averages pixels."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d
from transformers import CLIPTextConfig, CLIPTextModel

from lora_trainer.frozen_weights.held import FrozenWeights
from lora_trainer.hosts.base import (
    Conditioning,
    GeneratedImage,
    GenerateRequest,
    Glance,
    ModelInfo,
    SoleUser,
    TextEncoder,
)

INFO = ModelInfo("sd1", "epsilon", "diffusers", "tiny.safetensors", "00", "", "", "vae-1", "text-1", 64)


def tiny_unet(seed: int = 0) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=8, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=16, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval().requires_grad_(False)  # fmt: skip


def tiny_text_encoder() -> CLIPTextModel:
    torch.manual_seed(1)
    config = CLIPTextConfig(
        vocab_size=256, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return CLIPTextModel(config).eval().requires_grad_(False)


@dataclass
class TinyModel:
    """The taken model; counts what runs."""

    unet: nn.Module = field(default_factory=tiny_unet)
    text: nn.Module = field(default_factory=tiny_text_encoder)
    info: ModelInfo = INFO
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    images_encoded: int = 0
    captions_encoded: list[str] = field(default_factory=list)
    kept: list[list[str]] = field(default_factory=list)
    apart: bool = False
    with_it: dict[str, set[tuple[str, ...]]] = field(default_factory=dict)  # what was kept while a part was at work
    generated: list[GenerateRequest] = field(default_factory=list)
    held: list[tuple[int, int]] = field(default_factory=list)  # blocks in 8 bits and in CPU memory, at every call
    poison: bool = False  # the next image encodes to NaN

    def __post_init__(self) -> None:
        self.weights = FrozenWeights(self.unet, self.device)
        self.text_encoders = [TextEncoder(self.text, "lora_te", "transformers")]
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        self.alphas_cumprod = (1 - betas).cumprod(0).float()

    def encode_images(self, pixels: Tensor, tile: int = 0) -> tuple[Tensor, Tensor]:
        self._works("vae")
        self.images_encoded += len(pixels)
        small = avg_pool2d(pixels, 8)
        mean = torch.cat([small, small.mean(1, keepdim=True)], 1)
        if self.poison:
            mean = mean * float("nan")
        return mean, torch.full_like(mean, 0.05)

    def encode_captions(self, captions: Sequence[str], max_token_length: int, clip_skip: int) -> Conditioning:
        self._works("text_encoders")
        self.captions_encoded += captions
        rows = [[0, *hashlib.sha256(text.encode()).digest()[:6], 1] for text in captions]
        return Conditioning(self.text(input_ids=torch.tensor(rows)).last_hidden_state)

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, sizes: object) -> Tensor:
        self._works("unet")
        return self.unet(noisy, timesteps, encoder_hidden_states=conditioning.context).sample.float()

    def blocks(self) -> list[nn.Module]:
        return [m for m in self.unet.modules() if type(m).__name__ in ("BasicTransformerBlock", "ResnetBlock2D")]

    def modules(self, part: str) -> list[nn.Module]:
        return {"unet": [self.unet], "text_encoders": [self.text], "vae": []}[part]

    def keep(self, parts: Collection[str]) -> None:
        self.kept.append(list(parts))

    def hold(self, in_8_bits: Collection[nn.Module], in_cpu: Collection[nn.Module]) -> None:
        self.weights.put_back()
        self.weights.choose(in_8_bits, in_cpu)
        self.weights.take()
        self.held.append((len(in_8_bits), len(in_cpu)))

    def _works(self, part: str) -> None:
        self.with_it.setdefault(part, set()).add(tuple(self.kept[-1]) if self.kept else ())

    def generate(self, request: GenerateRequest) -> GeneratedImage:
        self.generated.append(request)
        return GeneratedImage(Image.new("RGB", (request.width, request.height)), request, request.prompt)


class TinyHost(SoleUser):
    """Lends a :class:`TinyModel`."""

    name = "tiny"

    def __init__(self, lora_dir: Path, model: TinyModel | None = None) -> None:
        self.lora_dir, self.model = lora_dir, model or TinyModel()
        self.taken = False
        self.refreshed: list[Path] = []

    def info(self) -> ModelInfo:
        return self.model.info

    def glance(self) -> Glance:
        return Glance(self.model.info.checkpoint, self.model.info.family, self.model.info.resolution)

    @contextlib.contextmanager
    def take(self, mixed_precision: str) -> Iterator[TinyModel]:
        self.taken = True
        try:
            yield self.model
        finally:
            self.model.weights.put_back()
            self.taken = False

    def generate(self, request: GenerateRequest) -> GeneratedImage:
        return self.model.generate(request)

    def check(self, request: GenerateRequest) -> None:
        pass

    def refresh_loras(self, changed: Sequence[Path] = ()) -> None:
        self.refreshed += changed


def make_dataset(root: Path, sizes: Sequence[tuple[int, int]] = ((64, 64),) * 5, repeats: int = 2) -> Path:
    """A folder ``<repeats>_zork`` of noise pictures of these sizes, with captions."""
    folder = root / f"{repeats}_zork"
    folder.mkdir(parents=True)
    for index, size in enumerate(sizes):
        generator = torch.Generator().manual_seed(index)
        pixels = torch.randint(0, 256, (size[1], size[0], 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"zork, picture {index}, big, red")
    return root
