"""A whole model's LoRA with blocks that run again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Make = Callable[[str], Any]


def recomputed(forward: Callable[..., Tensor], runs: list[str]) -> Callable[..., Tensor]:
    """A block's forward under non-reentrant checkpointing; notes every run."""

    def noted(*args: Any, **kwargs: Any) -> Tensor:
        runs.append("run")
        return forward(*args, **kwargs)

    def wrapped(*args: Any, **kwargs: Any) -> Tensor:
        return checkpoint(noted, *args, use_reentrant=False, **kwargs)

    return wrapped


@pytest.mark.parametrize("option", ["plain", "network_dropout", "rank_dropout", "module_dropout"])
def test_gradients_with_recomputed_blocks_are_equal(tiny: Make, models: Any, option: str) -> None:
    model = tiny("sd1")
    more = {} if option == "plain" else {option: 0.3}
    network = models.fill(model.network(network_dim=2, network_train_unet_only=True, conv_dim=2, **more))

    def gradients() -> list[Tensor | None]:
        network.begin_step(1, 4, samples=(0, 1))
        with network:
            (model.predict() ** 2).mean().backward()
        found = [parameter.grad for parameter in network.parameters()]
        for parameter in network.parameters():
            parameter.grad = None
        return found

    plain = gradients()
    runs: list[str] = []
    for block in model.unet.modules():
        if type(block).__name__ in ("BasicTransformerBlock", "ResnetBlock2D"):
            block.forward = recomputed(block.forward, runs)
    again = gradients()
    assert len(runs) == 2 * (16 + 22)
    assert sum(gradient is not None for gradient in plain) > 100
    for ours, theirs in zip(again, plain, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-8)
