"""The model that everybody measures: a checkpoint's, or one with a random UNet; and what goes into it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from lora_trainer.bench.plan import BenchPlan
from lora_trainer.dtypes import DTYPES
from lora_trainer.families import SD1, SD2, SDXL, Family, traits
from lora_trainer.hosts.base import Conditioning, ModelInfo, SizeConditioning
from lora_trainer.hosts.standalone.host import DiffusersHost, best_device
from lora_trainer.hosts.standalone.model import DiffusersModel, PictureSettings
from lora_trainer.hosts.standalone.parts import Parts
from lora_trainer.noise_schedule import linear_in_root
from lora_trainer.seeds import torch_generator

if TYPE_CHECKING:
    from torch import Tensor

SIZES: dict[str, dict[str, Any]] = {  # what differs from diffusers' default UNet, which is SD 1.5's but for the context
    "sd15": {},
    SDXL: {
        "block_out_channels": (320, 640, 1280), "attention_head_dim": (5, 10, 20), "cross_attention_dim": 2048,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10), "use_linear_projection": True, "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
    },
    "sd21": {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True},
    "small": {"block_out_channels": (64, 128, 256, 256)},
    "tiny": {"block_out_channels": (32, 32, 64, 64), "attention_head_dim": 4},
}  # fmt: skip
FAMILIES: dict[str, Family] = {SDXL: SDXL, "sd21": SD2}
CONTEXT_WIDTH, TOKENS = 768, 77


@contextmanager
def opened(plan: BenchPlan) -> Iterator[DiffusersModel]:
    """The checkpoint's model, or one with a random UNet; weights frozen and on the device."""
    if plan.checkpoint is not None:
        with DiffusersHost(plan.checkpoint, Path()).take(plan.precision) as model:
            model.keep(["unet"])
            yield model
        return
    nothing: Any = nn.Identity()  # no picture or caption is encoded here
    family = FAMILIES.get(plan.size, SD1)
    info = ModelInfo(family, "epsilon", "diffusers", f"random {plan.size}", "", "", "", "", "", 512)
    parts = Parts(random_unet(plan.size), nothing, [nothing], "epsilon")
    model = DiffusersModel(
        parts, info, linear_in_root(0.00085, 0.012), best_device(), PictureSettings(), cast(Any, None)
    )
    model.begin(DTYPES[plan.precision])
    yield model


def random_unet(size: str) -> Any:
    """A UNet with weights of plausible sizes, filled fast: values don't change how long anything takes."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**{"cross_attention_dim": CONTEXT_WIDTH, **SIZES[size]})
    unet.to_empty(device="cpu")
    block = torch.randn(1 << 16, generator=torch_generator("bench"))
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if weight.dim() > 1:
                flat = block.repeat(-(-weight.numel() // block.numel()))[: weight.numel()]
                weight.copy_(flat.view_as(weight) / weight[0].numel() ** 0.5)
            else:
                weight.fill_(1.0 if name.endswith("weight") else 0.0)
    return unet.requires_grad_(False).eval()


def shared_copy(unet: nn.Module) -> nn.Module:
    """The same architecture around the very same weights: one may be changed without the other."""
    return copy.deepcopy(unet, {id(weight): weight for weight in (*unet.parameters(), *unet.buffers())})


@dataclass(frozen=True)
class Batch:
    """What every contestant is given; on the device."""

    latents: Tensor  # [B, 4, h, w]
    conditioning: Conditioning
    sizes: list[SizeConditioning]

    @classmethod
    def make(cls, model: DiffusersModel, plan: BenchPlan) -> Batch:
        """Random latents and context of the model's shapes."""
        config = cast(Any, model.unet).config
        side, width = plan.resolution // 8, int(config.cross_attention_dim)

        def noise(*shape: int) -> Tensor:
            return torch.randn(shape, generator=torch_generator("bench", *shape)).to(model.device)

        pooled = None
        if traits(model.info.family).sized:  # the rest of its input are six embedded sizes
            wide = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
            pooled = noise(plan.batch, wide)
        square = (plan.resolution, plan.resolution)
        sizes = [SizeConditioning(square, (0, 0), square)] * plan.batch
        return cls(noise(plan.batch, 4, side, side), Conditioning(noise(plan.batch, TOKENS, width), pooled), sizes)
