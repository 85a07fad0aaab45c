"""Whether a dataset is fit to train on: the findings, what matters most first, and one sentence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_trainer.config import CaptionConfig, DatasetConfig
from lora_trainer.dataset.checks.advice import advice
from lora_trainer.dataset.checks.images import image_findings
from lora_trainer.dataset.checks.limits import FEWEST
from lora_trainer.dataset.checks.looks import FILE, Looks
from lora_trainer.dataset.checks.words import caption_findings
from lora_trainer.dataset.findings import Finding, names, sorted_findings
from lora_trainer.dataset.folders import OnImage, scan
from lora_trainer.dataset.items import Dataset, Skipped
from lora_trainer.dataset.plans import an, plan_for
from lora_trainer.dataset.summary import describe, summary
from lora_trainer.errors import counted

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MOST_REASONS = 2  # in the sentence

READY = "Ready."


@dataclass(frozen=True)
class Checked:
    """A dataset and what was found in it."""

    dataset: Dataset
    findings: tuple[Finding, ...]  # what matters most first

    @property
    def ready(self) -> bool:
        """Whether it is worth training on."""
        return not self._of("error")

    @property
    def readiness(self) -> str:
        """One sentence: ready, ready but, or not yet."""
        errors, warnings = self._of("error"), self._of("warning")
        if errors:
            more = len(errors) - MOST_REASONS
            rest = f"; and {counted(more, 'more reason')}" if more > 0 else ""
            return f"Not yet: {'; '.join(one.reason for one in errors[:MOST_REASONS])}{rest}."
        if not warnings:
            return READY
        number = NUMBERS[len(warnings)] if len(warnings) < len(NUMBERS) else str(len(warnings))
        return f"Ready; {number} {'thing' if len(warnings) == 1 else 'things'} would make it better."

    def lines(self) -> list[str]:
        """The sentence, what the dataset holds, and the findings with their weight."""
        skipped = map(str, self.dataset.skipped)
        told = [f"{one.severity}: {one}" for one in self.findings]
        return [self.readiness, *describe(summary(self.dataset)), *skipped, *told]

    def _of(self, severity: str) -> list[Finding]:
        return [one for one in self.findings if one.severity == severity]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "ready": self.ready, "readiness": self.readiness, "findings": [one.to_dict() for one in self.findings],
        }  # fmt: skip


def check(
    directory: Path,
    config: DatasetConfig,
    caption: CaptionConfig,
    subject: str = "",
    trigger: str = "",
    output: Path | None = None,
    progress: OnImage | None = None,
) -> Checked:
    """Look at a dataset.

    Args:
        directory: holds ``<repeats>_<trigger>`` folders, or is one.
        subject: person, character, style, object or concept; "" where nobody said.
        trigger: the word that the LoRA will be called by; "" for the folders' own words.
        output: the folder that remembers what was seen; None forgets.

    Raises:
        LoraTrainerError: nothing to train on; one sentence with the remedy.
    """
    plan_for(subject)  # refuses an unknown kind
    with Looks(output / FILE if output is not None else None, config.resolution) as looks:
        dataset = scan(directory, config, caption, progress, looks.size)
        return Checked(dataset, sorted_findings(_findings(dataset, looks, subject, trigger)))


def _findings(dataset: Dataset, looks: Looks, subject: str, trigger: str) -> Iterator[Finding]:
    # a file may be in several datasets, at several sizes
    items = list({item.path: item for item in dataset.pictures if not item.is_reg}.values())
    yield from _number(len(items), subject)
    yield from _unusable(dataset.skipped)
    yield from dataset.findings
    yield from caption_findings(items, trigger)
    seen = [(item, looks.of(item.path)) for item in items]
    yield from image_findings(seen, looks, dataset.resolution)
    yield from advice(seen, looks, subject)


def _number(images: int, subject: str) -> Iterator[Finding]:
    if images < FEWEST.value:
        yield Finding(
            "number", "error",
            f"{'There is' if images == 1 else 'There are'} only {counted(images, 'image')}: enough for a try, but the "
            "LoRA will do little more than copy them", f"use {FEWEST.value:g} or more",
        )  # fmt: skip
    elif plan := plan_for(subject):
        fewest, most = plan.fewest, plan.most
        if images < fewest:
            reason = f"{counted(images, 'image')} are few for {an(subject)}"
            yield Finding("number", "warning", reason, f"{fewest} to {most} are usual")
        elif images > 2 * most:
            reason = f"{counted(images, 'image')} are more than {an(subject)} needs ({fewest} to {most} are usual)"
            yield Finding("number", "info", reason, "the best ones alone train faster, and often better")


def _unusable(skipped: Sequence[Skipped]) -> Iterator[Finding]:
    """Files that can't be read as images; each one's own reason is in the dataset."""
    if not skipped:
        return
    files = tuple(one.path for one in skipped)
    if len(files) > 1:
        told = f"{len(files)} files can't be used ({names([path.name for path in files], 1)})"
        yield Finding("unreadable", "warning", told, "each is listed as skipped, with its reason", files)
        return
    reason, _, remedy = skipped[0].reason.rstrip(".").rpartition("; ")
    yield Finding("unreadable", "warning", f"{files[0].name} {reason or remedy}", remedy if reason else "", files)
