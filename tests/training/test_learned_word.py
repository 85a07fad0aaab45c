"""Which word pivotal tuning learns."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lora_trainer.config import RunConfig
from lora_trainer.errors import ConfigError
from lora_trainer.training.learned_word import word_to_learn

ON = RunConfig().replace(pivotal_tuning=True)


def dataset(*folders: str, caption: str = "a zork, far", reg: str = "") -> Any:
    rows = [(folder, False) for folder in folders] + [(reg, True)] * bool(reg)
    items = [
        SimpleNamespace(folder=SimpleNamespace(trigger=folder), captions=(caption,), is_reg=is_reg)
        for folder, is_reg in rows
    ]
    return SimpleNamespace(items=items)


def test_it_is_the_trigger_word_or_the_only_folders_first() -> None:
    assert word_to_learn(ON, "", dataset("zork man", "zork", reg="man")) == "zork"
    assert word_to_learn(ON, " far ", dataset("zork", "other")) == "far"
    assert word_to_learn(RunConfig(), "", dataset("a", "b")) == ""


@pytest.mark.parametrize(
    ("trigger", "folders", "sentence"), [("", ("a", "b"), "have several"), ("bork", ("a",), "no caption has")]
)
def test_what_isnt_clear_is_refused(trigger: str, folders: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        word_to_learn(ON, trigger, dataset(*folders))
