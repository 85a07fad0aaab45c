"""Autocast, gradient scaling and clipping."""

from __future__ import annotations

import math

import pytest
import torch

from lora_trainer.errors import ConfigError
from lora_trainer.training.precision import autocast, check_precision, clip_gradients, make_grad_scaler

CPU = torch.device("cpu")


def parameters() -> list[torch.nn.Parameter]:
    params = [
        torch.nn.Parameter(torch.zeros(3)),
        torch.nn.Parameter(torch.zeros(2, 2)),
        torch.nn.Parameter(torch.zeros(1)),
    ]
    params[0].grad, params[1].grad = torch.tensor([3.0, 0.0, 0.0]), torch.full((2, 2), 2.0)  # norm 5; the last has none
    return params


def test_bf16_computes_in_bf16_and_keeps_fp32_gradients() -> None:
    weight, x = torch.nn.Parameter(torch.ones(4, 4)), torch.full((2, 4), 1.001)
    with autocast(CPU, "bf16"):
        y = torch.nn.functional.linear(x, weight)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    with autocast(CPU, "no"):
        assert torch.nn.functional.linear(x, weight).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16), autocast(CPU, "no"):  # a host's own autocast stays
        assert torch.nn.functional.linear(x, weight).dtype == torch.bfloat16


def test_precisions_that_a_device_cannot_train_in_are_refused() -> None:
    check_precision(CPU, "no")
    check_precision(CPU, "bf16")
    with pytest.raises(ConfigError, match=r"fp16 can't be trained on cpu.*choose bf16 or no"):
        check_precision(CPU, "fp16")
    with pytest.raises(ConfigError, match=r"fp16 can't be trained on mps"):
        check_precision(torch.device("mps"), "fp16")
    with pytest.raises(ConfigError, match="'fp8'; choose one of no, fp16, bf16"):
        check_precision(CPU, "fp8")


@pytest.mark.parametrize("mixed_precision", ["no", "bf16", "fp16"])
def test_the_scaler_has_no_effect_where_it_is_not_needed(mixed_precision: str) -> None:
    scaler = make_grad_scaler(CPU, mixed_precision)
    assert not scaler.is_enabled()
    assert scaler.state_dict() == {}
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([p], lr=1.0)
    scaler.scale((p * torch.tensor([1.0, 2.0])).sum()).backward()
    assert clip_gradients([p], 0, scaler, optimizer) == pytest.approx(5**0.5)
    scaler.step(optimizer)
    scaler.update()
    assert p.tolist() == [0.0, -1.0]


def test_clipping_scales_all_gradients_to_the_norm() -> None:
    params = parameters()
    assert clip_gradients(params, 1.0) == pytest.approx(5)
    torch.testing.assert_close(params[0].grad, torch.tensor([0.6, 0, 0]), rtol=1e-5, atol=0)
    torch.testing.assert_close(params[1].grad, torch.full((2, 2), 0.4), rtol=1e-5, atol=0)
    assert params[2].grad is None


@pytest.mark.parametrize("max_norm", [0.0, 5.5])
def test_smaller_gradients_and_clipping_switched_off_change_nothing(max_norm: float) -> None:
    params = parameters()
    assert clip_gradients(iter(params), max_norm) == pytest.approx(5)
    assert params[0].grad is not None
    assert params[0].grad.tolist() == [3, 0, 0]
    assert params[1].grad is not None
    assert params[1].grad.tolist() == [[2, 2], [2, 2]]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("max_norm", [0.0, 1.0])
def test_one_bad_gradient_makes_the_norm_not_finite(bad: float, max_norm: float) -> None:
    params = parameters()
    assert params[1].grad is not None
    params[1].grad[1, 0] = bad
    assert not math.isfinite(clip_gradients(params, max_norm))


def cpu_scaler() -> torch.amp.GradScaler:
    if not hasattr(torch.amp, "GradScaler"):
        pytest.skip("this torch has no gradient scaler for the CPU")
    return torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)


def scaled_step(
    scaler: torch.amp.GradScaler, p: torch.nn.Parameter, optimizer: torch.optim.Optimizer, grad: float
) -> float:
    optimizer.zero_grad()
    scaler.scale((p * grad).sum()).backward()
    norm = clip_gradients([p], 1.0, scaler, optimizer)
    scaler.step(optimizer)
    scaler.update()
    return norm


def test_scaled_gradients_are_unscaled_before_clipping() -> None:
    p = torch.nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.SGD([p], lr=1.0)
    scaler = cpu_scaler()
    assert scaled_step(scaler, p, optimizer, 2.0) == pytest.approx(4)  # ‖(2, 2, 2, 2)‖
    torch.testing.assert_close(p.detach(), torch.full((4,), -0.5), rtol=1e-5, atol=0)  # clipped from 4 to 1
    with pytest.raises(ValueError, match="pass the optimizer"):
        clip_gradients([p], 1.0, scaler)


def test_an_overflow_skips_the_step_and_the_scale_is_saved_and_restored() -> None:
    p = torch.nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.SGD([p], lr=1.0)
    scaler = cpu_scaler()
    assert not math.isfinite(scaled_step(scaler, p, optimizer, math.inf))
    assert p.tolist() == [0] * 4
    assert scaler.get_scale() == 512
    scaled_step(scaler, p, optimizer, 1.0)
    restored = cpu_scaler()
    restored.load_state_dict(scaler.state_dict())
    scaled_step(restored, p, optimizer, 1.0)  # the second good step in a row: the scale grows again
    assert restored.get_scale() == 1024
