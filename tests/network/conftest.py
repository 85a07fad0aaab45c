"""Tiny and true-size models in the layouts that LoRA files are made for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from lora_trainer.config import RunConfig
from lora_trainer.families import Family
from lora_trainer.hosts.base import ModelInfo, Naming, TextEncoder
from lora_trainer.network.network import LoraNetwork

CROSS, PLAIN, UP_CROSS, UP_PLAIN = "CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"
SD1: dict[str, Any] = {
    "down_block_types": (CROSS, CROSS, CROSS, PLAIN),
    "up_block_types": (UP_PLAIN, UP_CROSS, UP_CROSS, UP_CROSS),
}
SDXL: dict[str, Any] = {
    "down_block_types": (PLAIN, CROSS, CROSS),
    "up_block_types": (UP_CROSS, UP_CROSS, UP_PLAIN),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
}
TRUE_SIZE: dict[str, dict[str, Any]] = {
    "sd1": {**SD1, "block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768, "attention_head_dim": 8},
    "sd2": {
        **SD1, "block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True,
    },
    "sdxl": {
        **SDXL, "block_out_channels": (320, 640, 1280), "cross_attention_dim": 2048,
        "attention_head_dim": (5, 10, 20), "transformer_layers_per_block": (1, 2, 10), "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}  # fmt: skip
TINY: dict[str, dict[str, Any]] = {
    "sd1": {**SD1, "block_out_channels": (8, 16, 24, 24), "cross_attention_dim": 12, "attention_head_dim": 2},
    "sd2": {
        **SD1, "block_out_channels": (8, 16, 24, 24), "cross_attention_dim": 12, "attention_head_dim": (1, 2, 2, 2),
        "use_linear_projection": True,
    },
    "sdxl": {
        **SDXL, "block_out_channels": (8, 16, 16), "cross_attention_dim": 20, "attention_head_dim": (1, 2, 2),
        "transformer_layers_per_block": (1, 1, 2), "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 8 + 6 * 4,
    },
}  # fmt: skip


def make_unet(config: dict[str, Any], seed: int = 0, **changes: Any) -> UNet2DConditionModel:
    """A frozen UNet with weights from a seed (the global generator stays as it was)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        options = {"in_channels": 4, "out_channels": 4, "layers_per_block": 2, "norm_num_groups": 4, "sample_size": 8}
        unet = UNet2DConditionModel(**{**options, **config, **changes})
    return unet.requires_grad_(False).eval()


def make_text_encoder(layers: int = 2, width: int = 12, projection: bool = False, **changes: Any) -> nn.Module:
    """A frozen CLIP text model."""
    options = {
        "vocab_size": 64, "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers,
        "num_attention_heads": 2, "max_position_embeddings": 16, "projection_dim": 8, "bos_token_id": 0,
        "eos_token_id": 63, "pad_token_id": 1,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(layers)
        config = CLIPTextConfig(**{**options, **changes})
        model: nn.Module = (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)
    return model.requires_grad_(False).eval()


def make_info(family: Family = "sd1", naming: Naming = "diffusers", **changes: Any) -> ModelInfo:
    """A description of a model."""
    values: dict[str, Any] = {
        "family": family, "prediction_type": "epsilon", "naming": naming, "checkpoint": "tiny.safetensors",
        "checkpoint_sha256": "", "vae": "", "vae_sha256": "", "vae_fingerprint": "", "text_fingerprint": "",
        "resolution": 64,
    }  # fmt: skip
    return ModelInfo(**{**values, **changes})


class Tiny:
    """A small whole model of one family, its inputs, and shortcuts for its LoRA."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self.info = make_info(family)
        self.unet = make_unet(TINY[family])
        first = make_text_encoder()
        if family == "sdxl":
            second = make_text_encoder(layers=3, width=8, projection=True)
            self.encoders = [
                TextEncoder(first, "lora_te1", "transformers"),
                TextEncoder(second, "lora_te2", "transformers"),
            ]
        else:
            self.encoders = [TextEncoder(first, "lora_te", "transformers")]
        generator = torch.Generator().manual_seed(7)
        self.latents = torch.randn(2, 4, 8, 8, generator=generator)
        self.context = torch.randn(2, 5, TINY[family]["cross_attention_dim"], generator=generator)
        self.tokens = torch.randint(2, 60, (2, 16), generator=generator)
        self.tokens[:, -1] = 63
        self.added = {"text_embeds": torch.randn(2, 8, generator=generator), "time_ids": torch.ones(2, 6)}

    def network(self, seed: int = 1, **options: Any) -> LoraNetwork:
        """A network of these options."""
        return LoraNetwork.create(self.unet, self.encoders, self.info, RunConfig().replace(**options), seed)

    def predict(self, context: torch.Tensor | None = None) -> torch.Tensor:
        """The UNet's output."""
        conditions = {"added_cond_kwargs": self.added} if self.family == "sdxl" else {}
        hidden = self.context if context is None else context
        output: torch.Tensor = self.unet(self.latents, torch.tensor([500, 20]), hidden, **conditions).sample
        return output

    def encode(self, index: int = 0) -> torch.Tensor:
        """The output of a text encoder before its last norm."""
        output: torch.Tensor = self.encoders[index].module(self.tokens, output_hidden_states=True).hidden_states[-1]
        return output


def fill(network: LoraNetwork, seed: int = 3, size: float = 0.3) -> LoraNetwork:
    """Give the up matrices values, as training would."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules:
        module.up.data.uniform_(-size, size, generator=generator)
    return network


class Models:
    """The builders above, for tests to use."""

    TRUE_SIZE, TINY = TRUE_SIZE, TINY
    unet = staticmethod(make_unet)
    text_encoder = staticmethod(make_text_encoder)
    info = staticmethod(make_info)
    fill = staticmethod(fill)
    Tiny = Tiny

    @staticmethod
    def targets_keys(targets: Sequence[Any]) -> list[str]:
        """Their keys."""
        return [target.key for target in targets]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models are faster without threads, above all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def models() -> type[Models]:
    """Builders of models."""
    return Models


@pytest.fixture
def tiny() -> Callable[[Family], Tiny]:
    """A small whole model of a family."""
    return Tiny
