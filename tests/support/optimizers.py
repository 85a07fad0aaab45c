"""Parameters and optimisers to try."""

from __future__ import annotations

from typing import Any

import torch

from lora_trainer.config import OptimizerConfig
from lora_trainer.seeds import torch_generator
from lora_trainer.training.optimizers import create_optimizer

SHAPES = ((16, 320), (320, 16), (8, 4, 3, 3))


def parameters() -> list[torch.nn.Parameter]:
    generator = torch_generator("parameters")
    return [torch.nn.Parameter(torch.randn(shape, generator=generator) * 0.1) for shape in SHAPES]


def make(params: list[torch.nn.Parameter], name: str, lr: float = 1e-2, **arguments: Any) -> torch.optim.Optimizer:
    groups = [{"params": params[:1], "name": "unet"}, {"params": params[1:], "name": "text_encoder"}]
    return create_optimizer(groups, OptimizerConfig(optimizer_type=name, learning_rate=lr, optimizer_args=arguments))
