"""What the tab's buttons do. Everything that reads files runs aside, so that the page answers during a run.

The methods know no gradio: they take plain values and give plain values; :mod:`lora_trainer.ui.tab` binds them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_trainer.config import OPTIONS, RunConfig
from lora_trainer.dataset.layout import unopened
from lora_trainer.errors import ConfigError, DatasetError, LooseImagesError, LoraTrainerError
from lora_trainer.ui import remembered, views
from lora_trainer.ui.copies import copy_photos
from lora_trainer.ui.estimate import Paces, count_steps, gpu_memory
from lora_trainer.ui.fitting import find, fitted, presets_for
from lora_trainer.ui.forms import CONTINUE, CUSTOM, REFUSE, REPLACE, Answer, Page

if TYPE_CHECKING:
    from lora_trainer.dataset.items import Dataset
    from lora_trainer.hosts.base import Glance
    from lora_trainer.ui.job import Job

DATASETS = "datasets"  # copies of photos, in the output folder
PHOTOS_BOX = " Or open “I just have photos” below the folder: it copies them into such a folder and leaves yours alone."
SETTINGS = "settings"  # saved configurations, in the output folder


class Actions:
    """The tab's actions on one job."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._paces = Paces()
        self._checked = ""  # the folder that was found fit

    def glance(self) -> Glance | None:
        """What is loaded; None where that can't be told."""
        try:
            return self.job.host.glance()
        except LoraTrainerError:
            return None

    def restore(self, page: Page) -> Answer:
        """The last settings, or those to begin with."""
        values, options = remembered.recall(self.job.output)
        if not options:
            return self.reset(page)
        self._checked = ""
        options = {**_plain(RunConfig()), **options}
        return self._planned(Answer(values=values, options=options, check=""), Page({**page.values, **values}, options))

    def reset(self, page: Page) -> Answer:
        """Everything as it is at first."""
        remembered.forget(self.job.output)
        self._checked = ""
        preset = presets_for(self.glance())[0]
        values = {
            "dataset": "", "trigger": "", "name": "", "preset": preset.name, "existing": REFUSE, "test": True,
            "repeats": "10",
        }  # fmt: skip
        config, notes = fitted(preset, self.glance(), self._suggested())
        answer = Answer(message="", check="", kohya="", values=values, options=_plain(config))
        return self._planned(answer, Page(values, config.to_dict()), notes)

    def choose_preset(self, page: Page) -> Answer:
        """All options of the chosen preset, fitted to this machine."""
        preset = find(presets_for(self.glance()), page.values.get("preset"))
        if preset is None:
            return Answer()
        config, notes = fitted(preset, self.glance(), self._suggested())
        answer = Answer(options=_plain(config))
        chosen = Page(page.values, config.to_dict())
        self._remember(chosen)
        return self._planned(answer, chosen, notes)

    def changed(self, page: Page) -> Answer:
        """The user changed something: it is remembered, and the plan follows."""
        self._remember(page)
        return self._planned(Answer(), page)

    def check(self, page: Page) -> Answer:
        """Look at the dataset; suggests trigger and name where there are none."""
        self._checked = ""
        try:
            dataset = self._scan(page)
        except LoraTrainerError as error:
            way_out = PHOTOS_BOX if isinstance(error, LooseImagesError) else ""
            return self._planned(Answer(check=views.problem(f"{error}{way_out}")), page)
        self._checked = page.dataset
        from lora_trainer.dataset.summary import summary

        facts = summary(dataset)
        words = next((folder.trigger for folder in facts.folders if folder.trigger and not folder.is_reg), "")
        answer = Answer(values={})
        if words and not page.trigger:
            answer.values["trigger"] = words
        if words and not page.name:
            answer.values["name"] = _as_name(words)
        page.values.update(answer.values)
        self._remember(page)
        answer.check = views.dataset_view(facts, dataset, page.trigger)
        return self._planned(answer, page, dataset=dataset)

    def copy(self, page: Page, files: Sequence[str]) -> Answer:
        """Make a dataset folder of photos: of those that were dropped, else of those in the folder."""
        try:
            sources = _arrived(files) or [_existing(page.dataset)]
            made = copy_photos(sources, self.job.output / DATASETS, page.trigger, page.values.get("repeats"))
        except LoraTrainerError as error:
            return Answer(check=views.problem(str(error)))
        page.values["dataset"] = str(made.folder)
        answer = self.check(page)
        answer.values["dataset"] = str(made.folder)
        told = f"{made.pictures} photos were copied to {made.folder}; {made.described} had a caption"
        rest = f", the others got “{page.trigger}” as theirs" if made.described < made.pictures else ""
        left = [f"Not copied: {file.name} {unopened(file)}" for file in made.left]
        answer.check = (
            views.note(told + rest + ". Your originals are untouched.")
            + views.note(*left, kind="lt-warn")
            + (answer.check or "")
        )
        return answer

    def start(self, page: Page) -> Answer:
        """Begin to train."""
        self._remember(page)
        existing = page.values.get("existing")
        try:
            if not page.dataset:
                raise DatasetError("Which images? Give their folder in step 1.")
            if not page.name:
                raise ConfigError("The LoRA has no name: give one in step 4.")
            self.job.start(
                {
                    "name": page.name, "dataset": page.dataset, "config": page.config().to_dict(),
                    "resume": existing == CONTINUE, "overwrite": existing == REPLACE,
                    "test": bool(page.values.get("test")), "trigger": page.trigger,
                }
            )  # fmt: skip
        except LoraTrainerError as error:
            return Answer(message=views.problem(str(error)))
        return Answer(message="")

    def test(self, page: Page) -> Answer:
        """Test the LoRA of that name."""
        try:
            if not page.name:
                raise ConfigError("Which LoRA? Give its name in step 4.")
            self.job.test({"lora": page.name, "trigger": page.trigger})
        except LoraTrainerError as error:
            return Answer(message=views.problem(str(error)))
        return Answer(message="")

    def load_settings(self, page: Page, file: str) -> Answer:
        """Read a configuration: kohya's JSON, ours, or a run.json."""
        from lora_trainer.kohya import load_config

        try:
            if not file.strip():
                raise ConfigError("Which file? Drop a JSON here or give its path.")
            loaded = load_config(Path(file.strip().strip('"')).expanduser())
        except LoraTrainerError as error:
            return Answer(kohya=views.problem(str(error)))
        answer = Answer(options=_plain(loaded.config), values={"preset": CUSTOM})
        for key, value in (("dataset", "train_data_dir"), ("name", "output_name")):
            if loaded.fields.get(value):
                answer.values[key] = str(loaded.fields[value])
        kind = {"own": "Our own settings", "kohya": "kohya's settings", "sd-scripts": "sd-scripts' settings"}
        answer.kohya = views.note(f"{kind[loaded.kind]} were read.") + views.note(*loaded.notices, kind="lt-warn")
        return self._planned(answer, Page({**page.values, **answer.values}, loaded.config.to_dict()))

    def save_settings(self, page: Page, file: str, kohya: bool) -> Answer:
        """Write the options as kohya's JSON or as ours."""
        from lora_trainer.files import write_json
        from lora_trainer.kohya import save_kohya

        ending = ".kohya.json" if kohya else ".json"
        try:
            given = file.strip().strip('"')
            target = (
                Path(given).expanduser() if given else self.job.output / SETTINGS / f"{page.name or 'lora'}{ending}"
            )
            if target.suffix != ".json":
                raise ConfigError(f"{target} can't be written: give a file name that ends in .json.")
            config, lost = page.config(), []
            if kohya:
                fields = {"train_data_dir": page.dataset, "output_name": page.name}
                lost = save_kohya(config, target, {key: value for key, value in fields.items() if value})
            else:
                write_json(target, config.to_dict())
        except LoraTrainerError as error:
            return Answer(kohya=views.problem(str(error)))
        return Answer(kohya=views.note(f"Saved as {target}.") + views.note(*lost, kind="lt-warn"))

    def cards(self, chosen: object, dataset: Dataset | None = None) -> list[tuple[str, str]]:
        """The presets' texts and names; loaded settings have a card of their own while they are chosen."""
        glance = self.glance()
        suggested = self._suggested()
        rows = []
        for preset in presets_for(glance):
            config, _ = fitted(preset, glance, suggested)
            steps = count_steps(dataset, config)[0] if dataset is not None else None
            rows.append((views.card_text(preset.label, preset.help, steps, self._pace(config, glance)), preset.name))
        return [*rows, ("Loaded\nSettings from a file.", CUSTOM)] if chosen == CUSTOM else rows

    def _planned(
        self,
        answer: Answer,
        page: Page,
        notes: Sequence[str] = (),
        dataset: Dataset | None = None,
    ) -> Answer:
        """The answer with the plan, as far as the options allow one."""
        glance = self.glance()
        steps = epochs = pace = None
        try:
            config = page.config()
            if dataset is None and self._checked and self._checked == page.dataset:
                dataset = self._scan(page)
            if dataset is not None:
                steps, epochs = count_steps(dataset, config)
            pace = self._pace(config, glance)
            doubts = _doubts(page, config, glance)
            answer.plan = views.plan_view(glance, steps, epochs, pace, gpu_memory(), notes, doubts)
        except LoraTrainerError as error:
            answer.plan = views.problem(str(error))
        answer.cards = self.cards(page.values.get("preset"), dataset)
        return answer

    def _pace(self, config: RunConfig, glance: Glance | None) -> Any:
        return self._paces.like(self.job.output, config, glance.checkpoint) if glance else None

    def _scan(self, page: Page) -> Dataset:
        from lora_trainer.dataset.folders import scan

        config = page.config()
        return scan(_existing(page.dataset), config.dataset, config.caption)

    def _suggested(self) -> Mapping[str, Any]:
        try:
            return self.job.host.defaults()
        except LoraTrainerError:
            return {}

    def _remember(self, page: Page) -> None:
        remembered.remember(self.job.output, page.values, page.options)


def _doubts(page: Page, config: RunConfig, glance: Glance | None) -> list[str]:
    """What of the settings hardly suits the model: the checkpoint may have been changed after the preset was chosen."""
    if glance is None:
        return []
    doubts = []
    chosen = page.values.get("preset")
    if chosen != CUSTOM and find(presets_for(glance), chosen) is None:
        doubts.append(f"The preset isn't one for {glance.checkpoint}: choose another one above.")
    side = max(config.dataset.resolution)
    if not 0.7 * glance.resolution <= side <= 1.6 * glance.resolution:
        doubts.append(
            f"Training at {side} pixels, but {glance.checkpoint} is made for {glance.resolution}: choose a preset "
            "anew, or change Resolution in Advanced."
        )
    return doubts


def _plain(config: RunConfig) -> dict[str, Any]:
    return {name: config.value(name) for name in OPTIONS}


def _existing(folder: str) -> Path:
    if not folder:
        raise DatasetError("Which images? Give the folder that they lie in.")
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise DatasetError(f"The folder {path} doesn't exist; check its path.")
    return path


def _arrived(files: Sequence[str]) -> list[Path]:
    """Dropped files; one that is empty is still on its way from the browser, and a copy would be worth nothing."""
    paths = [Path(file) for file in files]
    for path in paths:
        if not path.is_file() or not path.stat().st_size:
            raise DatasetError(f"{path.name} is empty or hasn't arrived yet: wait a moment and try again.")
    return paths


def _as_name(words: str) -> str:
    """A name that can stand in ``<lora:NAME:1>`` and be a file's."""
    return "".join(char if char.isalnum() or char in "-_" else "_" for char in words).strip("_") or "lora"
