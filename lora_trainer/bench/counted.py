"""The memory of a training step at a model's true size, counted without a card and without computing anything.

The UNet is made of fp16 tensors that have a shape and no numbers (torch's ``meta`` device). What a card's autocast and
its attention would make of each operation is done by hand: products in fp16, normalisation in fp32, attention that
keeps its inputs, its output and one number for each row (Dao 2022).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lora_trainer.bench.model import CONTEXT_WIDTH, FAMILIES, SIZES, TOKENS
from lora_trainer.config import RunConfig
from lora_trainer.families import SD1
from lora_trainer.hosts.base import ModelInfo
from lora_trainer.network.network import LoraNetwork
from lora_trainer.training.memory_plan.counting import StepCost, count_step
from lora_trainer.training.memory_plan.storage import BlockWeights, block_weights

META = torch.device("meta")
IN_FP16 = (F.linear, F.conv2d, torch.matmul, Tensor.__matmul__, torch.bmm)
IN_FP32 = (F.group_norm, F.layer_norm, F.mse_loss)
RECOMPUTED = ("BasicTransformerBlock", "ResnetBlock2D")


class AsOnACard(TorchFunctionMode):
    """Operations on tensors without numbers keep what they would keep on a CUDA card under fp16 autocast."""

    def __torch_function__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention:
            query, key, value = (tensor.half() for tensor in args[:3])
            return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, 0.0, False)[0]
        wanted = torch.float16 if function in IN_FP16 else torch.float32 if function in IN_FP32 else None
        if wanted is not None:
            args, kwargs = [_cast(value, wanted) for value in args], {k: _cast(v, wanted) for k, v in kwargs.items()}
        return function(*args, **kwargs)


@dataclass(frozen=True)
class CountedUnet:
    """A UNet and its step."""

    cost: StepCost
    weights: int  # bytes
    lora: int  # numbers
    blocks: list[BlockWeights]  # as the cost numbers them


def count_unet(size: str, resolution: int, batch: int = 1, rank: int = 16) -> CountedUnet:
    """Count a step of a UNet of :data:`SIZES`."""
    from diffusers import UNet2DConditionModel

    config: dict[str, Any] = {"cross_attention_dim": CONTEXT_WIDTH, **SIZES[size]}
    with META:
        unet: Any = UNet2DConditionModel(**config).half().eval().requires_grad_(False)
    network = _network(unet, size, rank)
    blocks = [module for module in unet.modules() if type(module).__name__ in RECOMPUTED]
    inputs = _inputs(config, resolution // 8, batch)

    def compute() -> Tensor:
        network.begin_step(1, samples=list(range(batch)))
        predicted: Tensor = unet(**inputs).sample
        return F.mse_loss(predicted.float(), inputs["sample"].float())

    weights = [*unet.parameters(), *unet.buffers(), *network.parameters()]
    with network, AsOnACard():
        cost = count_step(compute, blocks, weights, batch)
    lora = sum(parameter.numel() for parameter in network.parameters())
    weighed = block_weights(blocks, torch.float16)
    whole = sum(weight.nbytes for weight in unet.parameters())
    return CountedUnet(cost, whole, lora, [weighed[number] for number in cost.blocks])


def _network(unet: nn.Module, size: str, rank: int) -> LoraNetwork:
    info = ModelInfo(FAMILIES.get(size, SD1), "epsilon", "diffusers", size, "", "", "", "", "", 512)
    config = RunConfig().replace(network_dim=rank, network_alpha=rank, network_train_unet_only=True)
    network = LoraNetwork.create(unet, [], info, config, seed=1)
    for module in network.modules:
        module.weights = {name: nn.Parameter(weight.to(META)) for name, weight in module.weights.items()}
    return network


def _inputs(config: dict[str, Any], side: int, batch: int) -> dict[str, Any]:
    half: dict[str, Any] = {"device": META, "dtype": torch.float16}
    inputs: dict[str, Any] = {
        "sample": torch.zeros(batch, 4, side, side, **half), "timestep": torch.zeros(batch, device=META),
        "encoder_hidden_states": torch.zeros(batch, TOKENS, config["cross_attention_dim"], **half),
    }  # fmt: skip
    if "addition_time_embed_dim" in config:
        pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
        added = {"text_embeds": torch.zeros(batch, pooled, **half), "time_ids": torch.zeros(batch, 6, **half)}
        inputs["added_cond_kwargs"] = added
    return inputs


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
