"""The moving average of the weights: its arithmetic, its file, and what becomes of it when a run is continued."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from lora_trainer.config import RunConfig
from lora_trainer.errors import ConfigError
from lora_trainer.training.ema import Ema
from tests.support.runs import run, tensors


def test_the_average_is_that_of_the_formula() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, -2.0]))
    ema, expected = Ema([parameter], 0.9), parameter.detach().double()
    for step in range(1, 200):
        parameter.data.add_(0.1 * step)
        ema.step()
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * parameter.detach().double()
    torch.testing.assert_close(ema.average[0].double(), expected, rtol=1e-5, atol=1e-5)


def test_the_weights_are_as_they_were_after_looking_at_the_average() -> None:
    parameter = nn.Parameter(torch.randn(5))
    ema = Ema([parameter], 0.9)
    parameter.data.add_(1)
    before = parameter.detach().clone()
    with pytest.raises(ZeroDivisionError), ema.in_place():
        assert torch.equal(parameter, ema.average[0]) and not torch.equal(parameter, before)
        raise ZeroDivisionError
    assert torch.equal(parameter, before)


def test_a_continued_run_has_the_very_same_average(tmp_path: Path) -> None:
    options = {"max_train_steps": 8, "ema_decay": 0.9}
    run(tmp_path / "whole", **options)
    run(tmp_path / "cut", stop_at=3, **options)
    assert (tmp_path / "cut/loras/zork-ema.safetensors").is_file()
    run(tmp_path / "cut", resume=True, **options)
    for name in ("zork", "zork-ema"):
        whole, cut = ((tmp_path / place / f"loras/{name}.safetensors").read_bytes() for place in ("whole", "cut"))
        assert whole == cut
    last, average = (tensors(tmp_path / f"whole/loras/{name}.safetensors") for name in ("zork", "zork-ema"))
    assert last.keys() == average.keys() and any(not torch.equal(last[key], average[key]) for key in last)


def test_decays_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="ema_decay can't be 1"):
        RunConfig().replace(ema_decay=1.0)
    with pytest.raises(ConfigError, match="averages the weights itself"):
        RunConfig().replace(ema_decay=0.99, optimizer_type="AdamWScheduleFree")
