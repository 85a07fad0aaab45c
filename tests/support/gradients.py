"""The gradients of a small LoRA on a taken model."""

from __future__ import annotations

from typing import Any

import torch

from lora_trainer.config import RunConfig
from lora_trainer.network.network import LoraNetwork
from lora_trainer.training.checkpointing import checkpoint_blocks

CAPTIONS = ("zork, big", "a (red:1.5) [x]")


def gradients(taken: Any, recompute: bool) -> list[torch.Tensor]:
    """Of one step on two images, text encoders and all, with or without recomputation."""
    config = RunConfig().replace(network_dim=2)
    network = LoraNetwork.create(taken.unet, taken.text_encoders, taken.info, config, 5)
    parameters = [p for group in network.parameter_groups(config) for p in group["params"]]
    with torch.no_grad():
        for index, parameter in enumerate(parameters):
            parameter.add_(0.01 * (index % 3))
    network.begin_step(1, samples=[0, 1])
    with network, checkpoint_blocks(taken.blocks() if recompute else []):
        conditioning = taken.encode_captions(CAPTIONS, 75, 1)
        out = taken.predict(torch.ones(2, 4, 8, 8), torch.tensor([3, 900]), conditioning, [])
        out.square().mean().backward()
    return [p.grad for p in parameters]
