"""The plan of a test: which pictures, at which strengths, of which files; and reading it from a request's values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lora_trainer.errors import ConfigError, quoted
from lora_trainer.evaluation.lora_file import SavedPoint, read_resolution, read_trigger
from lora_trainer.evaluation.prompts import (
    DEFAULT_STRENGTH,
    DEFAULT_STRENGTHS,
    Prompt,
    integration_prompts,
    parse_strengths,
    read_prompts,
    strength_prompt,
    strength_text,
)
from lora_trainer.hosts.base import GenerateRequest
from lora_trainer.safetensors_file import whole_number
from lora_trainer.subjects import SUBJECTS, Subject, usual_subject
from lora_trainer.training.sampling import parse_line

EPOCH_STRENGTHS = (0.6, 0.8, 1.0)  # at which the files saved on the way are shown
MOST = 100  # strengths, prompts or seeds of one test


@dataclass(frozen=True)
class TestPlan:
    """What to render. Missing prompts are made from the trigger; a size of 0 is the model's native one."""

    __test__ = False  # for pytest, which takes every class of this name for a test

    trigger: str
    strength_prompt: Prompt | None = None
    integration: tuple[Prompt, ...] = ()
    strengths: tuple[float, ...] = DEFAULT_STRENGTHS
    seeds: tuple[int, ...] = (1, 2)
    seeds_chosen: bool = False  # by a person, and not to be made fewer
    preferred_strength: float = DEFAULT_STRENGTH
    epochs: bool = True  # measure and render the files saved on the way, too
    measures: bool = True
    subject: Subject = SUBJECTS["concept"]
    request: GenerateRequest = field(default_factory=lambda: GenerateRequest("", width=0, height=0))
    asked: Mapping[str, Any] = field(default_factory=dict)  # the values that it was read from

    def completed(self, side: int) -> TestPlan:
        """The plan with nothing left open; ``side`` in pixels is the model's native size."""
        if self.subject is SUBJECTS["concept"] is not usual_subject(side):
            return replace(self, subject=usual_subject(side)).completed(side)
        return replace(
            self,
            strength_prompt=self.strength_prompt or strength_prompt(self.trigger),
            integration=self.integration or integration_prompts(self.trigger, self.subject.integration),
            strengths=tuple(sorted({*self.strengths, 0.0})),
            request=replace(self.request, width=self.request.width or side, height=self.request.height or side),
        )


@dataclass(frozen=True)
class Shot:
    """One picture to make and where it belongs: ``kind`` strength, integration or epoch."""

    kind: str
    file: Path  # the LoRA file
    strength: float
    seed: int
    prompt: Prompt
    label: str  # of the column it stands in
    stem: str  # of the picture's file

    def request(self, default: GenerateRequest) -> GenerateRequest:
        """What the host is asked for; the prompt may carry sd-scripts' ``--n --s --l`` and so on."""
        return parse_line(self.prompt.at(self.file.stem, self.strength), replace(default, seed=self.seed))


def plan_shots(lora: Path, plan: TestPlan, points: Sequence[SavedPoint]) -> list[Shot]:
    """Every picture of a completed plan, in the order of making; the strength sweep comes first."""
    assert plan.strength_prompt is not None
    shots = []
    for strength in plan.strengths:  # one strength after the other: a host applies the weights once for each
        text = strength_text(strength)
        shots += [
            Shot("strength", lora, strength, seed, plan.strength_prompt, text, f"strength-{text}_seed{seed}")
            for seed in plan.seeds
        ]
    for number, prompt in enumerate(plan.integration, 1):
        for strength in dict.fromkeys((0.0, prompt.strength)):
            text = strength_text(strength)
            shots += [
                Shot("integration", lora, strength, seed, prompt, text, f"integration{number}-{text}_seed{seed}")
                for seed in plan.seeds
            ]
    last = [SavedPoint(lora, "the last", 0)] if points else []
    for point in [*points, *last]:
        for strength in EPOCH_STRENGTHS:
            stem = f"{point.path.stem}-{strength_text(strength)}_seed{plan.seeds[0]}"
            shots.append(
                Shot("epoch", point.path, strength, plan.seeds[0], plan.strength_prompt, point.label, f"epoch-{stem}")
            )
    return shots


def read_plan(lora: Path, values: Mapping[str, Any]) -> TestPlan:
    """The plan for a LoRA file: trigger and size from the file where ``values`` has none.

    Args:
        values: as the HTTP interface takes them: trigger, strengths, prompts, seeds, steps, width, height, sampler,
            epochs; lists may be texts with commas, prompts lines.

    Raises:
        ConfigError: names the value that can't be used.
    """
    trigger = _text(values, "trigger") or read_trigger(lora)
    return plan_of(values, lora.stem, trigger, read_resolution(lora) or (0, 0))


def plan_of(values: Mapping[str, Any], name: str, trigger: str, size: tuple[int, int] = (0, 0)) -> TestPlan:
    """The same for a LoRA that isn't there yet: whatever is wrong with the values is found here.

    Raises:
        ConfigError: names the value that can't be used.
    """
    width, height = (_side(values, side, own) for side, own in zip(("width", "height"), size, strict=True))
    request = GenerateRequest("", width=width, height=height)
    if values.get("steps") is not None:
        request = replace(request, steps=_number("steps", values["steps"], 1, 150))
    if values.get("sampler"):
        request = replace(request, sampler=_text(values, "sampler"))
    plan = TestPlan(trigger=trigger, request=request, asked=dict(values))
    if values.get("strengths") is not None:
        plan = replace(plan, strengths=parse_strengths(_listed(values, "strengths", ",")))
    if values.get("prompts"):
        plan = replace(plan, integration=read_prompts(_listed(values, "prompts", "\n"), name, trigger))
    if values.get("seeds") is not None:
        numbers = [_number("seeds", seed, 0, 2**32 - 1) for seed in _listed(values, "seeds", ",")]
        plan = replace(plan, seeds=tuple(dict.fromkeys(numbers)) or plan.seeds, seeds_chosen=True)
    if values.get("subject"):
        subject = _text(values, "subject")
        if subject not in SUBJECTS:
            raise ConfigError(f"subject can't be {quoted(subject)}; choose one of {', '.join(SUBJECTS)}.")
        plan = replace(plan, subject=SUBJECTS[subject])
    for switch in ("epochs", "measures"):
        if values.get(switch) is not None:
            if not isinstance(values[switch], bool):
                raise ConfigError(f"{switch} can't be {quoted(values[switch])}; give true or false.")
            plan = replace(plan, **{switch: values[switch]})
    return plan


def _text(values: Mapping[str, Any], key: str) -> str:
    text = values.get(key) or ""
    if not isinstance(text, str):
        raise ConfigError(f"{key} can't be {quoted(text)}; give text.")
    return text


def _listed(values: Mapping[str, Any], key: str, separator: str) -> list[str]:
    given = values[key]
    if isinstance(given, str):
        given = given.split(separator)
    if isinstance(given, (int, float)):
        return [str(given)]
    if not isinstance(given, (list, tuple)) or not all(isinstance(part, (str, int, float)) for part in given):
        raise ConfigError(f"{key} can't be {quoted(given)}; give a list.")
    if len(given) > MOST:
        raise ConfigError(f"{key} has {len(given)} values; a test takes at most {MOST}.")
    return [str(part) for part in given]


def _number(key: str, value: object, least: int, most: int) -> int:
    text = str(value).strip()
    number = whole_number(text, most)
    if number is None or number < least:
        raise ConfigError(f"{key} can't be {quoted(value)}; give a whole number from {least} to {most}.")
    return number


def _side(values: Mapping[str, Any], key: str, default: int) -> int:
    return max(64, _number(key, values[key], 64, 4096) // 8 * 8) if values.get(key) else default
