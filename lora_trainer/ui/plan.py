"""From the values of a test request to the plan of the test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_trainer.errors import ConfigError

if TYPE_CHECKING:
    from lora_trainer.evaluation.sweep import TestPlan


def test_plan(lora: Path, values: Mapping[str, Any]) -> TestPlan:
    """The plan for a LoRA file: trigger and size from the file where ``values`` has none.

    Raises:
        ConfigError: names the value that can't be used.
    """
    from lora_trainer.evaluation.lora_file import read_resolution, read_trigger
    from lora_trainer.evaluation.prompts import parse_prompt, parse_strengths
    from lora_trainer.evaluation.sweep import TestPlan
    from lora_trainer.hosts.base import GenerateRequest

    size = read_resolution(lora) or (0, 0)
    request = GenerateRequest("", width=_side(values, "width", size[0]), height=_side(values, "height", size[1]))
    if values.get("steps"):
        request = replace(request, steps=_number(values, "steps", 1, 150))
    if values.get("sampler"):
        request = replace(request, sampler=str(values["sampler"]))
    plan = TestPlan(trigger=str(values.get("trigger") or read_trigger(lora)), request=request)
    try:
        if values.get("strengths"):
            given = values["strengths"]
            text = given if isinstance(given, str) else ",".join(map(str, given))
            plan = replace(plan, strengths=parse_strengths(text))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"strengths: {error}.") from error
    if values.get("prompts"):
        given = values["prompts"]
        lines = given.splitlines() if isinstance(given, str) else list(given)
        prompts = tuple(parse_prompt(str(line).strip(), lora.stem, plan.trigger) for line in lines if str(line).strip())
        plan = replace(plan, integration=prompts)
    if values.get("seeds"):
        given = values["seeds"]
        numbers = given.split(",") if isinstance(given, str) else list(given)
        if not all(str(number).strip().isdigit() for number in numbers):
            raise ConfigError(f"seeds can't be {given!r}; give whole numbers such as 1,2,3.")
        plan = replace(plan, seeds=tuple(dict.fromkeys(int(number) for number in numbers)))
    if values.get("epochs") is not None:
        plan = replace(plan, epochs=bool(values["epochs"]))
    return plan


test_plan.__test__ = False  # type: ignore[attr-defined]  # it isn't one of pytest's


def _number(values: Mapping[str, Any], key: str, least: int, most: int) -> int:
    text = str(values[key]).strip()
    if not text.isdigit() or not least <= int(text) <= most:
        raise ConfigError(f"{key} can't be {values[key]!r}; give a whole number from {least} to {most}.")
    return int(text)


def _side(values: Mapping[str, Any], key: str, default: int) -> int:
    if not values.get(key):
        return default
    return max(64, _number(values, key, 64, 4096) // 8 * 8)
