"""Number formats of a LoRA layer, and what it keeps for the backward pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lora_trainer.network.adapter import Control
from lora_trainer.network.lora import LoraModule
from lora_trainer.network.targets import Target
from tests.support.layers import layer, lora, merged


@pytest.mark.parametrize("kind", ["bias", "conv3"])
def test_half_precision_keeps_fp32_weights_and_gradients(kind: str) -> None:
    module, x = layer(kind, torch.bfloat16)
    made = lora(module)
    reference = merged(made, module.float(), 1.0)(x.float())
    module.bfloat16()
    made.attach()
    y = module(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), reference, rtol=0.02, atol=0.05)
    y.float().sum().backward()
    assert made.down.dtype == torch.float32
    assert made.down.grad is not None and made.down.grad.dtype == torch.float32


def test_autocast_saves_one_half_copy_of_an_input_that_three_layers_share() -> None:
    x = torch.randn(64, 32, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    control = Control()
    layers = [nn.Linear(32, 32, bias=False).requires_grad_(False) for _ in range(3)]
    keys = ("attn1_to_q", "attn1_to_k", "attn1_to_v")
    loras = [
        LoraModule(Target(key, "", m, (32, 32), "unet"), 2, 1.0, control, 1)
        for key, m in zip(keys, layers, strict=True)
    ]
    for made in loras:
        made.attach()
    saved: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.numel() == x.numel():
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with torch.autocast("cpu", torch.bfloat16), hooks:
        outputs = [module(x) for module in layers]
    assert [tensor.dtype for tensor in saved.values()] == [torch.bfloat16]
    sum(y.float().sum() for y in outputs).backward()  # type: ignore[union-attr]
    assert x.grad is not None and x.grad.dtype == torch.float32
    assert all(made.up.grad is not None and made.up.grad.dtype == torch.float32 for made in loras)


def test_an_input_changed_in_place_between_two_layers_is_read_anew() -> None:
    control = Control()
    layers = [nn.Linear(32, 32, bias=False).requires_grad_(False) for _ in range(2)]
    for key, module in zip(("ff_net_0_proj", "ff_net_2"), layers, strict=True):
        made = LoraModule(Target(key, "", module, (32, 32), "unet"), 2, 1.0, control, 1)
        made.up.data.fill_(0.5)
        made.attach()
    x = torch.randn(64, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        layers[0](x)
        x.add_(1)
        changed, fresh = layers[1](x), layers[1](x.clone())
    assert torch.equal(changed, fresh)


def test_inference_tensors_which_have_no_version_are_read() -> None:
    module, x = layer("linear")
    made = lora(module)
    made.attach()
    expected = module(x)
    with torch.inference_mode():
        assert torch.equal(module(x.clone()), expected)


def test_nothing_of_the_outputs_size_is_saved() -> None:
    module = nn.Linear(32, 128).requires_grad_(False)
    made = lora(module, rank=2)
    made.attach()
    sizes: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    x = torch.randn(64, 32).requires_grad_(True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        module(x)
    assert max(sizes) == 128 * 32  # the frozen weight; the output has 64 · 128, and the input is 64 · 32


def test_an_input_changed_in_place_isnt_mistaken_for_the_last_one() -> None:
    module, x = layer("linear")
    made = lora(module)
    made.attach()
    module(x)
    x.mul_(2)
    torch.testing.assert_close(module(x), merged(made, module, 1.0)(x), rtol=1e-5, atol=1e-5)


def test_an_input_first_seen_without_gradients_gets_its_gradient() -> None:
    module, x = layer("linear")
    made = lora(module)
    x.requires_grad_(True)
    made.attach()
    with torch.no_grad():
        module(x)
    for _ in range(2):  # and again, after the first graph is gone
        x.grad = None
        module(x).sum().backward()
        expected = torch.ones(10) @ (module.weight + made.delta_weight())  # type: ignore[operator]
        torch.testing.assert_close(x.grad, expected.expand(3, 5, 6), rtol=1e-5, atol=1e-5)
