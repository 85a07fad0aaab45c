"""The base model's own weights are looked at before the first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lora_trainer.errors import UnsupportedModelError
from lora_trainer.training.watch.weights import broken_weights
from tests.support.runs import run
from tests.support.tiny_host import TinyHost, TinyModel


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_broken_weight_is_found_before_anything_is_computed(tmp_path: Path, value: float) -> None:
    host = TinyHost(tmp_path / "loras")
    next(iter(host.model.unet.parameters())).data.view(-1)[-1] = value
    with pytest.raises(
        UnsupportedModelError, match=r"^The checkpoint tiny\.safetensors can't be trained, because its UN"
    ):
        run(tmp_path, host=host)
    assert host.model.images_encoded == 0 and not host.model.captions_encoded and not host.taken
    assert not list((tmp_path / "loras").glob("*.safetensors"))


def test_large_weights_whose_sum_overflows_are_fine() -> None:
    model = TinyModel()
    weight = next(iter(model.unet.parameters()))
    weight.data.fill_(3e38)
    assert not torch.isfinite(weight.sum()) and broken_weights(model) == ""


def test_each_weight_is_summed_once_and_none_is_looked_at_closely(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sums, close = TinyModel(), [], []
    total, isfinite = torch.Tensor.sum, torch.isfinite
    monkeypatch.setattr(torch.Tensor, "sum", lambda self, **more: (sums.append(1), total(self, **more))[1])
    monkeypatch.setattr(torch, "isfinite", lambda x: (close.append(x.numel()), isfinite(x))[1])
    weights = [weight for module in (model.unet, model.text) for weight in module.parameters()]
    assert broken_weights(model) == "" and len(sums) == len(weights)
    assert len(close) == 2 and max(close) < len(weights)


def test_fp16_weights_are_told_with_the_remedy() -> None:
    model = TinyModel()
    model.unet.half()
    weight = next(iter(model.unet.parameters()))
    weight.data[0] = float("inf")
    assert "numbers that fp16 can't hold" in broken_weights(model) and "bf16" in broken_weights(model)


def test_quantised_weights_that_are_no_floats_are_passed_over() -> None:
    model: Any = TinyModel()
    model.unet.register_parameter("table", nn.Parameter(torch.zeros(3, dtype=torch.int8), requires_grad=False))
    assert broken_weights(model) == ""
