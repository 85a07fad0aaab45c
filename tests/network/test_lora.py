"""One LoRA layer: against merged weights, its gradients, and what it must not touch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lora_trainer.network.adapter import Control
from lora_trainer.network.lora import LoraModule
from lora_trainer.network.targets import Target
from tests.support.layers import layer, lora, merged

CONTROL = Control()


@pytest.mark.parametrize("kind", ["linear", "bias", "conv1", "conv3"])
@pytest.mark.parametrize("multiplier", [1.0, 0.6, -1.0])
def test_output_is_that_of_merged_weights(kind: str, multiplier: float) -> None:
    module, x = layer(kind)
    made = lora(module, multiplier=multiplier)
    expected = merged(made, module, multiplier)(x)
    made.attach()
    torch.testing.assert_close(module(x), expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(expected, F.linear(x, module.weight) if "conv" not in kind else expected * 0, atol=1e-2)  # type: ignore[arg-type]


def test_strided_convolution_is_that_of_merged_weights() -> None:
    module, x = layer("conv3", stride=2, padding=1)
    made = lora(module)
    expected = merged(made, module, 1.0)(x)
    made.attach()
    torch.testing.assert_close(module(x), expected, rtol=1e-5, atol=1e-5)


def test_a_convolution_that_a_host_made_circular_stays_circular() -> None:
    module, x = layer("conv3", padding_mode="circular")
    made = lora(module)
    made.attach()
    y = module(x)
    shifted = module(x.roll((3, 2), dims=(2, 3))).roll((-3, -2), dims=(2, 3))
    torch.testing.assert_close(y, shifted, rtol=1e-5, atol=1e-5)  # only true if both parts wrap around


@pytest.mark.parametrize("kind", ["linear", "bias", "conv1", "conv3"])
def test_delta_weight_is_what_the_layer_adds(kind: str) -> None:
    module, x = layer(kind)
    made = lora(module, rank=3, alpha=5.0)
    module_output = module(x)
    made.attach()
    difference = module(x) - module_output
    weight = made.delta_weight().detach()
    expected = F.linear(x, weight) if weight.dim() == 2 else F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    torch.testing.assert_close(difference, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "bias", "conv1", "conv3"])
@pytest.mark.parametrize("state", ["up is zero", "strength 0", "disabled"])
def test_output_is_the_models_own_bit_for_bit(kind: str, state: str) -> None:
    module, x = layer(kind)
    expected = module(x)
    made = lora(module, multiplier=0.0 if state == "strength 0" else 1.0, enabled=state != "disabled")
    if state == "up is zero":
        made.up.data.zero_()
    made.attach()
    assert torch.equal(module(x), expected)


@pytest.mark.parametrize("kind", ["linear", "bias"])
def test_gradients_equal_those_of_the_formula(kind: str) -> None:
    module, x = layer(kind)
    made = lora(module, multiplier=0.7)
    weight = torch.randn(3, 5, 10, generator=torch.Generator().manual_seed(9))

    def gradients(forward: Callable[[Tensor], Tensor]) -> list[Tensor]:
        inputs = x.clone().requires_grad_(True)
        ((forward(inputs) ** 2) * weight).sum().backward()
        found = [inputs.grad, made.down.grad, made.up.grad]
        made.down.grad = made.up.grad = None
        return [gradient for gradient in found if gradient is not None]

    plain = gradients(lambda v: module(v) + F.linear(F.linear(v, made.down), made.up) * (made.alpha / made.rank * 0.7))
    made.attach()
    fused = gradients(module)
    assert len(plain) == len(fused) == 3
    for ours, theirs in zip(fused, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_gradients_by_finite_differences() -> None:
    module, x = layer("bias", torch.float64)
    made = lora(module)
    made.down.data, made.up.data = made.down.data.double(), made.up.data.double()
    made.attach()
    inputs = x.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda v, _down, _up: module(v), (inputs, made.down, made.up), atol=1e-6)


def test_input_without_gradient_still_trains_the_lora() -> None:
    module, x = layer("linear")
    made = lora(module)
    made.attach()
    module(x).sum().backward()
    assert made.down.grad is not None and made.up.grad is not None
    assert float(made.down.grad.abs().sum()) > 0 and float(made.up.grad.abs().sum()) > 0


def test_base_weights_and_input_are_not_written() -> None:
    for kind in ("linear", "bias", "conv1", "conv3"):
        module, x = layer(kind)
        made = lora(module)
        before = {name: tensor.clone() for name, tensor in module.state_dict().items()} | {"x": x.clone()}
        made.attach()
        inputs = x.requires_grad_(True)
        (module(inputs) ** 2).sum().backward()
        after = {**module.state_dict(), "x": inputs.detach()}
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert all(parameter.grad is None for parameter in module.parameters())


def test_detach_removes_every_trace() -> None:
    module, x = layer("bias")
    before, expected = dict(module.__dict__), module(x)
    made = lora(module)
    made.attach()
    assert not torch.equal(module(x), expected)
    made.detach()
    made.detach()
    assert torch.equal(module(x), expected)
    assert {name: value for name, value in module.__dict__.items() if value} == {n: v for n, v in before.items() if v}


def test_initialisation_depends_on_seed_and_key_only() -> None:
    module, _ = layer("conv3")
    torch.manual_seed(1)
    first = lora(module)
    state = torch.random.get_rng_state()
    second = lora(module)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(first.down, second.down) and torch.equal(first.down, lora(module).down)
    assert not torch.equal(first.down, lora(module, key="other").down)
    bound = 1 / (6 * 9) ** 0.5  # kaiming_uniform with a = √5: √(6 / ((1 + 5) · fan_in))
    large = LoraModule(Target("k", "", module, (10, 6, 3, 3), "unet"), 500, 1.0, CONTROL, 1).down
    assert float(large.detach().abs().max()) <= bound
    assert float(large.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.02)
    assert (
        float(LoraModule(Target("k", "", module, (10, 6, 3, 3), "unet"), 2, 1.0, CONTROL, 1).up.detach().abs().sum())
        == 0
    )
