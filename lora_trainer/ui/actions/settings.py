"""The settings as a whole: those of last time, those to begin with, a preset's, and every change."""

from __future__ import annotations

from lora_trainer.fitting import find, fitted, presets_for
from lora_trainer.ui import remembered
from lora_trainer.ui.desk import Desk, plain
from lora_trainer.ui.forms import Answer, Page


def restore(desk: Desk, page: Page) -> Answer:
    """The last settings, or those to begin with."""
    last = desk.recall()
    if last is None:
        return reset(desk, page)
    desk.checked = ""
    desk.draft.put(last)
    return desk.planned(Answer({"check_answer": ""}, values=last.values, options=last.options), last)


def reset(desk: Desk, page: Page) -> Answer:
    """Everything as it is at first."""
    remembered.forget(desk.job.output)
    desk.checked = ""
    first, notes = desk.fresh()
    desk.draft.put(first)
    empty = {"message": "", "check_answer": "", "json_answer": ""}
    return desk.planned(Answer(empty, values=first.values, options=first.options), first, notes)


def choose_preset(desk: Desk, page: Page) -> Answer:
    """All options of the chosen preset, fitted to this machine."""
    preset = find(presets_for(desk.glance()), page.values.get("preset"))
    if preset is None:
        return Answer()
    config, notes = fitted(preset, desk.glance(), desk.suggested())
    chosen = desk.page(plain(config))
    desk.remember()
    return desk.planned(Answer(options=plain(config)), chosen, notes)


def changed(desk: Desk, page: Page) -> Answer:
    """The user changed something: it is remembered, and the plan follows."""
    desk.remember()
    return look(desk, page)


def look(desk: Desk, page: Page) -> Answer:
    """The plan as it is now: another checkpoint may have been loaded meanwhile. Nothing is remembered."""
    return desk.planned(Answer(), page)
