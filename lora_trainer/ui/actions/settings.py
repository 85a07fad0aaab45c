"""The settings as a whole: those of last time, those to begin with, a preset's, and every change."""

from __future__ import annotations

from typing import Any

from lora_trainer.advice import advice
from lora_trainer.errors import LoraTrainerError
from lora_trainer.fitting import find, fitted, presets_for
from lora_trainer.ui import remembered, views
from lora_trainer.ui.desk import Desk, plain
from lora_trainer.ui.forms import CUSTOM, Answer, Page

MOST_NAMED = 4  # changed options in a sentence


def restore(desk: Desk, page: Page) -> Answer:
    """The last settings, or those to begin with."""
    last = desk.recall()
    if last is None:
        return reset(desk, page)
    desk.checked = ""
    desk.put(last)
    return desk.planned(Answer({"check_answer": ""}, values=last.values, options=last.options), last)


def take_over(desk: Desk, answer: Answer) -> Answer:
    """Settings of elsewhere, which the answer holds, take the place of those on the page."""
    answer.values["preset"] = CUSTOM
    now = desk.page({**answer.values, **answer.options})
    desk.origin = CUSTOM
    desk.remember()
    return desk.planned(answer, now)


def use(desk: Desk, page: Page, source: str) -> Answer:
    """The settings of a run (``run NAME``) or of an entry of the queue (``queue ID``)."""
    from lora_trainer.config import RunConfig
    from lora_trainer.runs.recorded import recorded

    kind, _, which = source.partition(" ")
    values: dict[str, Any]
    try:
        if kind == "queue":
            entry = desk.job.line.queue.read().get(int(which))
            values = {"name": entry.name, "dataset": entry.dataset, "trigger": entry.trigger, "test": entry.test}
            options, said = (
                entry.config,
                f"These are the settings of {entry.name}. Change them, then press Add to queue.",
            )
        else:
            found = recorded(desk.job.output, which)
            values = {"name": found.name, "dataset": found.dataset, "trigger": found.trigger}
            options, said = (
                found.config,
                f"These are the settings of the run {found.name}; choose another name to keep it.",
            )
        answer = Answer(values=values, options=plain(RunConfig.from_dict(options)))
    except (LoraTrainerError, ValueError) as error:
        return Answer({"message": views.problem(str(error))})
    answer.html = {"check_answer": "", "message": views.note(said)}
    desk.checked = ""
    return take_over(desk, answer)


def ask_reset(desk: Desk, page: Page) -> Answer:
    """Whether everything shall be reset."""
    told = "Folder, trigger word, name and every option are reset to what they were at first."
    return Answer({"reset_question": views.question(told, "reset", "keep")})


def reset(desk: Desk, page: Page) -> Answer:
    """Everything as it is at first."""
    remembered.forget(desk.job.output)
    desk.checked = ""
    first, notes = desk.fresh()
    desk.put(first)
    empty = {"message": "", "check_answer": "", "json_answer": "", "reset_question": ""}
    return desk.planned(Answer(empty, values=first.values, options=first.options), first, notes)


def choose_preset(desk: Desk, page: Page) -> Answer:
    """All options of the chosen preset, fitted to this machine; changes of the user's own can be brought back."""
    preset = find(presets_for(desk.glance()), page.values.get("preset"))
    if preset is None:
        return Answer()
    edited, origin = desk.edited(page), desk.origin or desk.fresh()[0].values["preset"]
    config, notes = fitted(preset, desk.glance(), desk.suggested())
    chosen = desk.page(plain(config))
    desk.origin = preset.name
    desk.remember()
    answer = desk.planned(Answer(options=plain(config)), chosen, notes)
    if edited:
        desk.before = Page({**page.values, "preset": origin}, page.options)
        named = ", ".join(edited[:MOST_NAMED]) + (" and more" if len(edited) > MOST_NAMED else "")
        lost = "the loaded settings" if origin == CUSTOM else f"your changes to {named}"
        answer.html["plan"] += views.question(f"The preset replaced {lost}.", "undo", kind="lt-quiet")
    return answer


def take_advice(desk: Desk, page: Page) -> Answer:
    """The options that the checkpoint calls for; they can be taken back like a preset."""
    try:
        found = advice(desk.glance(), page.config())
    except LoraTrainerError as error:
        return Answer({"message": views.problem(str(error))})
    called = {name: value for one in found for name, value in one.options.items()}
    desk.before = Page(dict(page.values), dict(page.options))
    changed = desk.page(called)
    desk.remember()
    answer = desk.planned(Answer(options=called), changed)
    answer.html["plan"] += views.question(f"Set: {', '.join(called)}.", "undo", kind="lt-quiet")
    return answer


def undo(desk: Desk, page: Page) -> Answer:
    """The options as they were before the last choice of a preset."""
    if desk.before is None:
        return Answer()
    preset = {"preset": desk.before.values["preset"]}
    back, desk.before = Page({**page.values, **preset}, desk.before.options), None
    desk.put(back)
    desk.remember()
    return desk.planned(Answer(values=preset, options=back.options), back)


def changed(desk: Desk, page: Page) -> Answer:
    """The user changed something: it is remembered, and the plan follows."""
    desk.remember()
    return look(desk, page)


def look(desk: Desk, page: Page) -> Answer:
    """The plan as it is now: another checkpoint may have been loaded meanwhile. Nothing is remembered."""
    return desk.planned(Answer(), page)
