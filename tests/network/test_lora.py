"""One LoRA layer: against merged weights, its gradients, its dropout, and what it must not touch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lora_trainer.network.adapter import Control
from lora_trainer.network.lora import LoraModule
from lora_trainer.network.targets import Target

CONTROL = Control()


def layer(kind: str, dtype: torch.dtype = torch.float32, **options: Any) -> tuple[nn.Module, Tensor]:
    """A frozen layer and an input."""
    generator = torch.Generator().manual_seed(5)
    module: nn.Module
    if kind in ("linear", "bias"):
        module, x = nn.Linear(6, 10, bias=kind == "bias"), torch.randn(3, 5, 6, generator=generator)
    else:
        size = int(kind[-1])
        module = nn.Conv2d(6, 10, size, **{"padding": size // 2, **options})
        x = torch.randn(3, 6, 8, 8, generator=generator)
    for parameter in module.parameters():
        parameter.data.uniform_(-0.5, 0.5, generator=generator)
    return module.to(dtype).requires_grad_(False), x.to(dtype)


def lora(module: nn.Module, rank: int = 4, alpha: float = 2.0, key: str = "k", **control: Any) -> LoraModule:
    """A LoRA with a non-zero up matrix for a layer."""
    target = Target(key, "path", module, tuple(module.weight.shape), "unet")  # type: ignore[arg-type, union-attr]
    made = LoraModule(target, rank, alpha, Control(**control), seed=1)
    made.up.data.uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(2))
    return made


def merged(made: LoraModule, module: Any, multiplier: float) -> nn.Module:
    """The layer with W + multiplier · alpha/r · B·A, computed index by index."""
    down, up = made.down.detach().double().flatten(1), made.up.detach().double().flatten(1)
    change = torch.einsum("or,ri->oi", up, down).view(module.weight.shape) * (made.alpha / made.rank * multiplier)
    clone: nn.Module = type(module)(
        *((module.in_features, module.out_features) if isinstance(module, nn.Linear) else (6, 10, module.kernel_size)),
        **({} if isinstance(module, nn.Linear) else {"padding": module.padding, "stride": module.stride}),
        bias=module.bias is not None,
    )  # fmt: skip
    clone.weight = nn.Parameter((module.weight.double() + change).float())
    clone.bias = module.bias
    return clone


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
