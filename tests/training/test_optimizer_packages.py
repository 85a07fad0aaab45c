"""Optimisers whose package is missing, or doesn't work here."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
import torch

from lora_trainer.errors import ConfigError
from tests.support.optimizers import make, parameters


@pytest.mark.parametrize(
    ("name", "package", "instead"),
    [
        ("AdamW8bit", "bitsandbytes", "choose AdamW"),
        ("DAdaptAdam", "dadaptation", "choose Prodigy"),
        ("AdamWScheduleFree", "schedulefree", "choose AdamW"),
    ],
)
def test_a_missing_package_is_named_with_what_to_choose_instead(
    name: str, package: str, instead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [module for module in sys.modules if module.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=f"{name} can't be imported.*{instead}.*install {package}"):
        make(parameters(), name)


@pytest.mark.parametrize("failure", ["raises", "does nothing"])
def test_bitsandbytes_that_does_not_work_here_is_noticed_before_training(
    failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            if failure == "raises":
                raise NameError("str2optimizer8bit_blockwise is not defined")

    Broken.__module__ = "bitsandbytes.optim.adamw"
    fake = types.ModuleType("bitsandbytes.optim")
    fake.AdamW8bit = Broken  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bitsandbytes", types.ModuleType("bitsandbytes"))
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", fake)
    with pytest.raises(ConfigError, match=r"AdamW8bit doesn't work on cpu here \(.+\); choose AdamW"):
        make(parameters(), "AdamW8bit")
