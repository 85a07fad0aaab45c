"""What all actions of the tab share: the job, the settings as they stand, and the plan that follows from them.

An action is a function ``(desk, page, …) -> Answer``. It knows no gradio: plain values in, plain values out;
:mod:`lora_trainer.ui.binding` connects it to the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_trainer.advice import advice
from lora_trainer.config import OPTIONS, RunConfig
from lora_trainer.dataset.dataset_file import is_dataset_file
from lora_trainer.errors import DatasetError, LoraTrainerError
from lora_trainer.fitting import find, fitted, is_practice, presets_for
from lora_trainer.training.memory_plan.figures import Expected, expected
from lora_trainer.ui import remembered, views
from lora_trainer.ui.draft import Draft
from lora_trainer.ui.estimate import Paces, count_steps, gpu_memory
from lora_trainer.ui.forms import ANYTHING, CUSTOM, Answer, Page

if TYPE_CHECKING:
    from lora_trainer.dataset.checks.check import Checked
    from lora_trainer.dataset.items import Dataset
    from lora_trainer.hosts.base import Glance
    from lora_trainer.ui.job import Job


class Desk:
    """One job and the settings of its next run."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.draft = Draft(self._first)
        self.checked = ""  # the folder that was found fit
        self.origin: object = ""  # the preset that the options come from; empty: the first one
        self.before: Page | None = None  # the settings that a preset took the place of
        self._paces = Paces()

    def page(self, sent: Mapping[str, Any]) -> Page:
        """The settings, after taking in what an event sent."""
        return self.draft.page(sent)

    def remember(self) -> None:
        """Keep the settings for next time."""
        page = self.draft.page()
        remembered.remember(self.job.output, page.values, page.options)

    def recall(self) -> Page | None:
        """The settings of last time."""
        values, options = remembered.recall(self.job.output)
        if not options:
            return None
        first = self.fresh()[0].values
        known = {name: value for name, value in values.items() if name in first}
        return Page({**first, **known}, {**plain(RunConfig()), **options})

    def fresh(self) -> tuple[Page, list[str]]:
        """The settings to begin with, and why they aren't quite the preset's."""
        preset = presets_for(self.glance())[0]
        config, notes = fitted(preset, self.glance(), self.suggested())
        values = {
            "dataset": "", "trigger": "", "name": "", "preset": preset.name, "test": True,
            "subject": ANYTHING, "test_prompts": "",
            "photos_folder": "", "photos_word": "", "repeats": "", "crops": False,
        }  # fmt: skip
        return Page(values, plain(config)), notes

    def _first(self) -> Page:
        return self.recall() or self.fresh()[0]

    def glance(self) -> Glance | None:
        """What is loaded; None where that can't be told."""
        try:
            return self.job.host.glance()
        except LoraTrainerError:
            return None

    def suggested(self) -> Mapping[str, Any]:
        """The host's own defaults."""
        try:
            return self.job.host.defaults()
        except LoraTrainerError:
            return {}

    def put(self, page: Page) -> None:
        """The page is filled anew."""
        self.draft.put(page)
        self.origin = page.values.get("preset")

    def edited(self, page: Page) -> list[str]:
        """The options that the user changed since a preset set them all."""
        presets = presets_for(self.glance())
        preset = find(presets, self.origin) if self.origin else presets[0]
        offered = plain(fitted(preset, self.glance(), self.suggested())[0]) if preset else {}
        try:
            now: Mapping[str, Any] = plain(page.config())
        except LoraTrainerError:  # something typed that can't be used is a change, too
            now = page.options
        return [name for name in OPTIONS if now.get(name) != offered.get(name)]

    def scan(self, page: Page) -> Dataset:
        """The dataset as it would be trained.

        Raises:
            LoraTrainerError: one sentence.
        """
        from lora_trainer.dataset.checks.looks import FILE, Looks
        from lora_trainer.dataset.folders import scan

        config = page.config()
        with Looks(self.job.output / FILE, config.dataset.resolution) as looks:  # checked before, nothing is decoded
            return scan(existing(page.dataset), config.dataset, config.caption, size_of=looks.size)

    def check(self, page: Page) -> Checked:
        """Whether the dataset is fit to train on.

        Raises:
            LoraTrainerError: one sentence.
        """
        from lora_trainer.dataset.checks.check import check

        config, folder = page.config(), existing(page.dataset)
        with self.job.looking.at_work("Looking at images") as seen:
            return check(folder, config.dataset, config.caption, page.subject, page.trigger, self.job.output, seen)

    def planned(self, answer: Answer, page: Page, notes: Sequence[str] = (), dataset: Dataset | None = None) -> Answer:
        """The answer with the plan, as far as the options allow one."""
        glance = self.glance()
        steps = epochs = pace = None
        try:
            config = page.config()
            if dataset is None and self.checked and self.checked == page.dataset:
                dataset = self.scan(page)
            if dataset is not None:
                steps, epochs = count_steps(dataset, config)
            pace = self._pace(config, glance)
            doubts = [*_doubts(page, config, glance), *_photos(glance, dataset)]
            answer.html["plan"] = views.plan_view(
                glance, steps, epochs, pace, gpu_memory(), _needed(config, glance), notes, doubts
            ) + views.advice_view(advice(glance, config))
        except LoraTrainerError as error:
            answer.html["plan"] = views.problem(str(error))
        answer.cards = self.cards(page.values.get("preset"), dataset)
        return answer

    def cards(self, chosen: object, dataset: Dataset | None = None) -> list[tuple[str, str]]:
        """The presets' texts and names; loaded settings have a card of their own while they are chosen."""
        glance = self.glance()
        suggested = self.suggested()
        rows = []
        for preset in presets_for(glance):
            config, _ = fitted(preset, glance, suggested)
            steps = count_steps(dataset, config)[0] if dataset is not None else None
            pace, needed = self._pace(config, glance), _needed(config, glance)
            rows.append((views.card_text(preset.label, preset.help, steps, pace, needed), preset.name))
        return [*rows, ("Loaded\nSettings from a file or a run.", CUSTOM)] if chosen == CUSTOM else rows

    def _pace(self, config: RunConfig, glance: Glance | None) -> Any:
        return self._paces.like(self.job.output, config, glance.checkpoint) if glance else None


def _needed(config: RunConfig, glance: Glance | None) -> Expected | None:
    """The memory that a run needs; nobody has counted it for models to practise on."""
    if glance is None or glance.refusal or is_practice(glance):
        return None
    return expected(glance.family, config, gpu_memory() is not None)


def _doubts(page: Page, config: RunConfig, glance: Glance | None) -> list[str]:
    """What of the settings hardly suits the model: the checkpoint may have been changed after the preset was chosen."""
    if glance is None:
        return []
    doubts = []
    chosen = page.values.get("preset")
    if chosen != CUSTOM and find(presets_for(glance), chosen) is None:
        doubts.append(f"This preset doesn't suit {glance.checkpoint}; choose another one above.")
    side = max(config.dataset.resolution)
    if not 0.7 * glance.resolution <= side <= 1.6 * glance.resolution:
        doubts.append(
            f"Training at {side} pixels, but {glance.checkpoint} is made for {glance.resolution}; choose the preset "
            "again, or change Resolution under Advanced."
        )
    return doubts


def _photos(glance: Glance | None, dataset: Dataset | None) -> list[str]:
    """Photos are more than the practice model can take in."""
    if glance is None or not is_practice(glance) or dataset is None:
        return []
    if max(max(item.size) for item in dataset.items) <= 4 * glance.resolution:
        return []
    return [
        f"{glance.checkpoint} is a practice model for simple shapes at {glance.resolution} pixels. It can't "
        "learn photos; for those, load a real checkpoint, such as one of SD 1.5."
    ]


def plain(config: RunConfig) -> dict[str, Any]:
    """The options by name."""
    return {name: config.value(name) for name in OPTIONS}


def existing(folder: str) -> Path:
    """The folder that was typed.

    Raises:
        DatasetError: if there is none.
    """
    if not folder:
        raise DatasetError("Which images? Give their folder.")
    path = Path(folder).expanduser()
    if not path.is_dir() and not is_dataset_file(path):
        if path.is_file():
            raise DatasetError(f"{path} is a file; give the folder that it is in.")
        raise DatasetError(f"The folder {path} doesn't exist; check its path.")
    return path
