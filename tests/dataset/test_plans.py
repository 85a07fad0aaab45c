"""The plans for each kind of subject fit what the rest of the house knows of these kinds."""

from __future__ import annotations

import pytest

from lora_trainer.config.presets import find_preset
from lora_trainer.dataset.plans import PLANS, plan_for
from lora_trainer.errors import ConfigError
from lora_trainer.subjects import SUBJECTS


@pytest.mark.parametrize("kind", PLANS)
def test_a_plan_names_what_there_is(kind: str) -> None:
    plan = PLANS[kind]
    assert kind in SUBJECTS and find_preset(plan.preset).name == plan.preset
    assert 5 < plan.fewest < plan.most and plan_for(kind) is plan
    example = plan.captions.partition("For example: ")[2]
    assert example.startswith("zwx_"), "an example begins with the trigger word"
    assert f"{plan.fewest} to {plan.most}" in plan.lines(kind)[0]


def test_every_kind_has_a_plan() -> None:
    assert set(PLANS) == set(SUBJECTS) - {"practice"} and plan_for("") is None
    with pytest.raises(ConfigError, match=r"subject can't be 'cat'.*person"):
        plan_for("cat")
