"""Dropout of a LoRA layer: a function of the step, the image and nothing else."""

from __future__ import annotations

import hashlib

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lora_trainer.network.adapter import Control
from lora_trainer.network.lora import LoraModule
from lora_trainer.network.targets import Target
from tests.support.layers import layer, lora, merged

KINDS = [("linear", "network_dropout"), ("linear", "rank_dropout"), ("linear", "module_dropout")]
KINDS += [("conv3", "network_dropout"), ("conv3", "rank_dropout")]


def run(made: LoraModule, module: nn.Module, x: Tensor, step: int, samples: tuple[int, ...] = (0, 1, 2)) -> Tensor:
    made.control.step_key, made.control.samples = (11, step), samples
    y: Tensor = module(x)
    return y


@pytest.mark.parametrize(("kind", "option"), KINDS)
def test_dropout_is_a_function_of_the_step(kind: str, option: str) -> None:
    module, x = layer(kind)
    plain = module(x)
    made = lora(module, **{option: 0.5})
    made.attach()
    torch.manual_seed(1)
    outputs = [run(made, module, x, step) for step in range(12)]
    torch.manual_seed(2)
    for step, y in enumerate(outputs):
        assert torch.equal(run(made, module, x, step), y)
    assert len({hashlib.sha256(y.detach().numpy().tobytes()).hexdigest() for y in outputs}) > 1
    if option == "module_dropout":
        skipped = sum(torch.equal(y, plain) for y in outputs)
        assert 0 < skipped < 12
    made.control.training = False
    torch.testing.assert_close(module(x), merged(made, module, 1.0)(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "option"), [pair for pair in KINDS if pair[1] != "module_dropout"])
def test_dropout_keeps_the_mean(kind: str, option: str) -> None:
    module, x = layer(kind)
    plain = module(x)
    made = lora(module, **{option: 0.3})
    made.attach()
    with torch.no_grad():
        mean = torch.stack([run(made, module, x, step) for step in range(400)]).mean(0)
    full = merged(made, module, 1.0)(x).detach()
    error = (mean - full).norm() / (full - plain).norm()
    assert float(error) < 0.1  # of the change itself; about √(0.3/0.7/400) of each term


def test_rank_dropout_drops_whole_ranks_of_an_image() -> None:
    module, x = layer("linear")
    made = lora(module, rank=4, alpha=4.0, rank_dropout=0.5)
    plain = module(x)
    made.attach()
    change = (run(made, module, x, 3) - plain).detach()  # [3, 5, 10]
    inner = F.linear(x, made.down).detach()
    for image in range(3):
        # the change of all tokens of an image is explained by one weight for each rank, 0 or 1/(1-p)
        basis = torch.einsum("tr,or->tor", inner[image], made.up.detach()).reshape(-1, 4)
        weights = torch.linalg.lstsq(basis, change[image].reshape(-1, 1)).solution.flatten()
        assert all(min(abs(float(w)), abs(float(w) - 2)) < 1e-3 for w in weights)


def test_an_images_dropout_doesnt_depend_on_its_neighbours() -> None:
    module, x = layer("linear")
    made = lora(module, network_dropout=0.5)
    made.attach()
    together = run(made, module, x, 0, (4, 5, 6))
    for row, sample in enumerate((4, 5, 6)):
        torch.testing.assert_close(run(made, module, x[row : row + 1], 0, (sample,)), together[row : row + 1])
    chunks = x.repeat_interleave(2, dim=0)  # two chunks of 75 tokens for each caption
    both = run(made, module, chunks, 0, (4, 5, 6))
    torch.testing.assert_close(run(made, module, chunks[2:4], 0, (5,)), both[2:4])
    assert not torch.allclose(both[2], both[3])
    odd = run(made, module, x[:1].repeat(4, 1, 1) if x.dim() == 3 else x[:1].repeat(4, 1), 0, (4, 5, 6))
    torch.testing.assert_close(odd[0], run(made, module, x[:1], 0, (0,))[0], msg="rows that belong to no image")


def test_dropout_without_a_step_is_a_mistake() -> None:
    module, x = layer("linear")
    made = lora(module, network_dropout=0.5)
    made.attach()
    with pytest.raises(RuntimeError, match="begin_step"):
        module(x)


@pytest.mark.parametrize("option", ["none", "network_dropout", "rank_dropout", "module_dropout"])
def test_recomputation_gives_the_same_gradients(option: str) -> None:
    first, x = layer("linear")
    second = nn.Conv2d(3, 3, 3, padding=1).requires_grad_(False)
    control = Control(step_key=(1, 2), samples=(0,), **({} if option == "none" else {option: 0.4}))
    loras = [
        LoraModule(Target("a", "", first, (10, 6), "unet"), 2, 1.0, control, 1),
        LoraModule(Target("b", "", second, (3, 3, 3, 3), "unet"), 2, 1.0, control, 1),
    ]
    for made in loras:
        made.up.data.fill_(0.3)
        made.attach()

    def block(v: Tensor) -> Tensor:
        y: Tensor = second(F.gelu(first(v))[None])
        return y

    def gradients(recompute: bool) -> list[Tensor]:
        inputs = x.clone().requires_grad_(True)
        y = checkpoint(block, inputs, use_reentrant=False) if recompute else block(inputs)
        (y**2).sum().backward()
        found = [inputs.grad, *(made.up.grad for made in loras), *(made.down.grad for made in loras)]
        for made in loras:
            made.down.grad = made.up.grad = None
        return [torch.zeros(()) if gradient is None else gradient for gradient in found]

    for ours, theirs in zip(gradients(True), gradients(False), strict=True):
        assert torch.equal(ours, theirs)
