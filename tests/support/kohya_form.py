"""What the tests of kohya's configurations share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lora_trainer.config import RunConfig
from lora_trainer.errors import ConfigError
from lora_trainer.kohya import load_kohya

DATA = Path(__file__).parent.parent / "data"
STARTER = DATA / "kohya_starter.json"
FORM = {
    "LoRA_type": "Standard",
    "max_resolution": "512,512",
    "lr_warmup": 0,
    "epoch": 10,
}  # what makes it a form's file


def form(**values: Any) -> RunConfig:
    """The options of a form's file with these values."""
    return load_kohya({**FORM, **values}).config


def notices(**values: Any) -> list[str]:
    """What the user is told about it."""
    return load_kohya({**FORM, **values}).notices


def refused(values: dict[str, Any]) -> str:
    """The one sentence that refuses a configuration."""
    with pytest.raises(ConfigError) as caught:
        load_kohya(values)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith((".", "?")), sentence
    return sentence
