"""DyLoRA: which ranks take part at a step, which of them are trained, and that the file knows nothing of it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from lycoris.modules.dylora import DyLoraModule as LycorisModule
from torch import Tensor, nn

from lora_trainer.network.control import Control
from lora_trainer.network.dylora import DyLoraModule
from lora_trainer.network.targets import Target
from tests.support.layers import layer, lora


def made(kind: str, unit: int = 2, training: bool = True) -> tuple[DyLoraModule, nn.Module, Tensor]:
    """One of rank 4 with a non-zero up matrix, with its layer and an input."""
    module, x = layer(kind)
    target = Target("k", "path", module, tuple(module.weight.shape), "unet")  # type: ignore[arg-type, union-attr]
    adapter = DyLoraModule(target, 4, 2.0, Control(training=training, step_key=(5, 1)), seed=1, unit=unit)
    adapter.up.data.copy_(lora(module).up)
    return adapter, module, x


@pytest.mark.parametrize("kind", ["linear", "conv3"])
def test_the_ranks_up_to_the_block_take_part_and_the_block_is_trained(kind: str) -> None:
    seen = set()
    for step in range(12):
        adapter, module, x = made(kind)
        plain = module(x)
        adapter.control.step_key = (5, step)
        first, end = adapter.block()
        seen.add((first, end))
        adapter.attach()
        output = module(x)
        assert torch.equal(module(x), output), "one block for the whole step, also where it is computed again"
        down, up = adapter.down[:end].double(), adapter.up[:, :end].flatten(1).double()
        # sd-scripts: alpha / dim · √(dim / (first + unit))
        change = torch.einsum("or,r...->o...", up, down) * (2.0 / 4) * (4 / end) ** 0.5
        alone = F.linear(x.double(), change) if kind == "linear" else F.conv2d(x.double(), change, padding=1)
        torch.testing.assert_close((output - plain).double(), alone, rtol=1e-4, atol=1e-5)
        output.square().sum().backward()
        for grad in (adapter.weights["down"].grad, adapter.weights["up"].grad.flatten(1).T):  # type: ignore[union-attr]
            trained = grad.flatten(1).abs().sum(1) > 0  # type: ignore[union-attr]
            assert trained.tolist() == [first <= rank < end for rank in range(4)]
    assert seen == {(0, 2), (2, 4)}


def test_lycoris_lets_the_same_ranks_take_part() -> None:
    adapter, module, x = made("linear")
    theirs = LycorisModule("k", module, 1.0, lora_dim=4, alpha=2.0, block_size=2)
    for number in (0, 1):
        ranks = slice(2 * number, 2 * number + 2)
        theirs.down_list[number].data.copy_(adapter.down[ranks])
        theirs.up_list[number].data.copy_(adapter.up[:, ranks])
    for step in range(6):
        adapter.control.step_key = (5, step)
        first, end = adapter.block()
        change, _ = theirs.get_diff_weight(rank=first)  # it scales by alpha / (blocks in use)
        scale = (2.0 / 4) * (4 / end) ** 0.5 / (2.0 / (first // 2 + 1))
        torch.testing.assert_close(adapter.add_to(module(x), x) - module(x), F.linear(x, change * scale))


def test_pictures_are_made_with_all_ranks_and_modules_draw_for_themselves() -> None:
    adapter, module, x = made("linear", training=False)
    assert torch.equal(adapter.add_to(module(x), x), lora(module).add_to(module(x), x))
    assert adapter.file_parts().keys() == lora(module).file_parts().keys() and adapter.label == "LoRA"
    other = DyLoraModule(adapter.target, 5, 2.0, Control(step_key=(5, 1)), seed=1, unit=3)
    ends = set()
    for step in range(12):
        other.control.step_key = (5, step)
        ends.add(other.block())
    assert ends == {(0, 3), (3, 5)}, "the last block is smaller"
