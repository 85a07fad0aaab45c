"""What a step is said to keep is what it keeps; held against every storage that a real step makes."""

from __future__ import annotations

from collections.abc import Callable, Collection

import pytest
import torch
from torch import Tensor

from lora_trainer.config import RunConfig
from lora_trainer.network.network import LoraNetwork
from lora_trainer.training.checkpointing import checkpoint_blocks
from lora_trainer.training.memory_plan.choosing import choose
from lora_trainer.training.memory_plan.counting import Live, StepCost, count_step
from tests.support.tiny_host import TinyModel

SHAPES = [(2, 16, False), (1, 24, True)]  # images, latent side, bf16


class Step:
    """A training step of the tiny model."""

    def __init__(self, images: int, side: int, half: bool, **options: object) -> None:
        self.model, self.images = TinyModel(), images
        config = RunConfig().replace(network_dim=4, **{"network_train_unet_only": True, **options})
        self.network = LoraNetwork.create(self.model.unet, self.model.text_encoders, self.model.info, config, 1)
        self.parameters = self.network.parameters()
        for parameter in self.parameters:
            parameter.data.add_(0.01)
        self.noisy, self.times = torch.randn(images, 4, side, side), torch.full((images,), 5)
        self.conditioning = self.model.encode_captions(["a"] * images, 75, 1)
        self.half, self.blocks = half, self.model.blocks()

    def loss(self) -> Tensor:
        self.network.begin_step(1, samples=list(range(self.images)))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            return self.model.predict(self.noisy, self.times, self.conditioning, []).square().mean()

    def cost(self, compute: Callable[[], Tensor] | None = None) -> StepCost:
        weights = [*self.model.unet.parameters(), *self.model.unet.buffers(), *self.parameters]
        with self.network:
            return count_step(compute or self.loss, self.blocks, weights, self.images)

    def really(self, recomputed: Collection[int] = (), cost: StepCost | None = None) -> tuple[int, int]:
        """Bytes held between the passes, and the most at once without the weights' gradients."""
        live, numbers = Live(), [cost.blocks[place] for place in recomputed] if cost else []
        with self.network, checkpoint_blocks([self.blocks[number] for number in numbers]), live:
            loss = self.loss()
            held = live.now()
            loss.backward()
        gradients = sum(parameter.numel() * 4 for parameter in self.parameters)
        for parameter in self.parameters:
            parameter.grad = None
        return held, live.peak() - gradients


@pytest.mark.parametrize(("images", "side", "half"), SHAPES)
def test_what_is_kept_without_recomputation(images: int, side: int, half: bool) -> None:
    step = Step(images, side, half)
    held, peak = step.really()
    cost = step.cost()
    assert cost.held(()) == pytest.approx(held, rel=0.01) and cost.peak(()) == pytest.approx(peak, rel=0.05)


@pytest.mark.parametrize("which", [(0, 4), (6, 7, 8, 9), (11,), range(12)])
@pytest.mark.parametrize(("images", "side", "half"), SHAPES)
def test_what_is_kept_with_recomputation(images: int, side: int, half: bool, which: Collection[int]) -> None:
    step = Step(images, side, half)
    cost = step.cost()
    held, peak = step.really(which, cost)
    assert cost.held(which) == pytest.approx(held, rel=0.1) and cost.peak(which) == pytest.approx(peak, rel=0.1)


def test_counting_keeps_nothing_and_changes_nothing() -> None:
    step = Step(2, 16, False)
    with step.network:
        before = step.loss().item()
    live = Live()
    with live:
        cost = step.cost()
    assert live.peak() < cost.held(()) / 4, "it takes what a forward pass takes"
    with step.network:
        assert step.loss().item() == before
    assert all("forward" not in vars(block) for block in step.blocks)
    assert all(parameter.grad is None for parameter in step.parameters)


def test_after_an_error_everything_is_as_before() -> None:
    step = Step(1, 16, False)

    def failing() -> Tensor:
        step.loss()
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        step.cost(failing)
    assert all("forward" not in vars(block) for block in step.blocks)
    held, _ = step.really()
    assert step.cost().held(()) == pytest.approx(held, rel=0.01)


def test_as_few_blocks_as_needed_and_those_that_free_most_for_their_work() -> None:
    cost = Step(2, 16, False).cost()
    free, full = choose(cost, 2, None), cost.peak(range(12))
    assert free is not None and free.recomputed == () and free.work == 1
    before = free
    for room in torch.linspace(free.peak, full, 9).int().tolist():
        found = choose(cost, 2, room)
        assert found is not None and found.at_once == 2 and found.peak <= room
        assert found.work >= before.work, "less room, more work"
        if found.recomputed:
            fewer = cost.peak(found.recomputed[1:])
            assert len(found.recomputed) == 1 or fewer > room or cost.inside(found.recomputed[0]) == 0
        before = found
    half = choose(cost, 2, full // 2 + 1)
    assert half is not None and half.at_once == 1 and len(half.recomputed) == 12
    assert choose(cost, 2, half.peak - 1) is None
    every = choose(cost, 2, None, everything=True)
    assert every is not None and len(every.recomputed) == 12
