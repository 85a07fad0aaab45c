"""Look at a dataset, and make one of loose photos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lora_trainer.dataset.plans import PLANS
from lora_trainer.dataset.prepare import DATASETS, check_trigger, free_folder, prepare
from lora_trainer.errors import DatasetError, LooseImagesError, LoraTrainerError
from lora_trainer.ui import views
from lora_trainer.ui.check_view import check_view, undo_view
from lora_trainer.ui.desk import Desk, existing
from lora_trainer.ui.forms import Answer, Page

COPIES = "Copy them into a training folder"


def check(desk: Desk, page: Page) -> Answer:
    """Look at the dataset; suggests trigger and name, which the page takes where nothing was typed."""
    desk.checked = ""
    try:
        checked = desk.check(page)
    except LoraTrainerError as error:
        way_out = views.photos_button(page.dataset, COPIES) if isinstance(error, LooseImagesError) else ""
        told = views.problem(str(error)) + way_out + undo_view(_undoable(desk, page))
        return desk.planned(Answer({"check_answer": told}), page)
    desk.checked = page.dataset
    from lora_trainer.dataset.remedies import Remedies
    from lora_trainer.dataset.summary import summary

    facts = summary(checked.dataset)
    words = next((folder.trigger for folder in facts.folders if folder.trigger and not folder.is_reg), "")
    suggested = {"trigger": words, "name": _as_name(words)} if words else {}
    desk.remember()
    remedies = Remedies(existing(page.dataset), page.trigger)
    view = check_view(checked, facts, suggested, remedies, _undoable(desk, page))
    return desk.planned(Answer({"check_answer": view}), page, dataset=checked.dataset)


def _undoable(desk: Desk, page: Page) -> str:
    """The remedy that was applied last to the dataset."""
    from lora_trainer.dataset.changes import Journal

    try:
        return Journal(existing(page.dataset), desk.job.output).undoable
    except LoraTrainerError:
        return ""


def plan(desk: Desk, page: Page) -> Answer:
    """What the kind of subject takes; images that were found fit are checked again for it."""
    known = bool(desk.checked) and desk.checked == page.dataset
    answer = check(desk, page) if known else Answer()
    found = PLANS.get(page.subject)
    answer.html["subject_plan"] = views.note(*found.lines(page.subject), kind="lt-quiet") if found else ""
    return answer


def copy(desk: Desk, page: Page, files: Sequence[str]) -> Answer:
    """Make a training folder of photos: of those that were dropped, else of those in their folder."""
    word = str(page.values.get("photos_word") or "").strip() or page.trigger
    try:
        sources = _arrived(files) or [_folder(page)]
        output, subject = desk.job.output, page.subject
        folder = free_folder(output / DATASETS, check_trigger(word))
        repeats, looking = page.values.get("repeats") or "", desk.job.looking
        with looking.at_work("Looking at photos") as seen:
            made = prepare(sources, folder, word, repeats, subject, output, seen,
                           crops=bool(page.values.get("crops")))  # fmt: skip
    except LoraTrainerError as error:
        return Answer({"check_answer": views.problem(str(error))})
    filled = {"dataset": str(made.folder), "trigger": word}
    answer = check(desk, desk.page(filled))
    answer.values |= filled
    told = made.lines()
    left = [line for line in told if line.startswith("Not copied")]
    answer.html["check_answer"] = (
        views.note(*(line for line in told if line not in left))
        + views.note(*left, kind="lt-warn")
        + answer.html["check_answer"]
    )
    return answer


def _folder(page: Page) -> Path:
    given = str(page.values.get("photos_folder") or "").strip().strip('"')
    if not given:
        raise DatasetError("Which photos? Drop them above, or give the folder that they are in.")
    return existing(given)


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
