"""Begin to train, or to test."""

from __future__ import annotations

from typing import Any

from lora_trainer.errors import ConfigError, DatasetError, LoraTrainerError, NameTakenError
from lora_trainer.ui import views
from lora_trainer.ui.desk import Desk
from lora_trainer.ui.forms import Answer, Page


def start(desk: Desk, page: Page, *choices: str) -> Answer:
    """Begin to train. What is there already is asked about; ``choices`` are "resume" and "overwrite", as chosen."""
    desk.remember()
    try:
        desk.job.start(_values(page, choices))
    except NameTakenError as error:
        return Answer({"message": views.question(str(error), *error.choices, "name")})
    except LoraTrainerError as error:
        return Answer({"message": views.problem(str(error))})
    return Answer({"message": ""})


def enqueue(desk: Desk, page: Page, *choices: str) -> Answer:
    """Put the training at the end of the queue, or in the place of its entry of that name; ``choices`` are "change",
    "resume" and "overwrite", as chosen."""
    desk.remember()
    line = desk.job.line
    try:
        values, content = _values(page, choices), line.queue.read()
        there = next((entry for entry in content.waiting if entry.name == page.name), None)
        if there is None:
            entry = line.add(values)
        elif "change" in choices:
            entry = line.edit(there.id, values)
        else:
            told = f"{page.name} is in the queue already, at place {content.waiting.index(there) + 1}."
            return Answer({"message": views.question(told, "queue+change", "name")})
    except NameTakenError as error:
        change = [choice for choice in choices if choice == "change"]
        ways = ("+".join(("queue", *change, choice)) for choice in error.choices)
        return Answer({"message": views.question(str(error), *ways, "name")})
    except LoraTrainerError as error:
        return Answer({"message": views.problem(str(error))})
    begins = "begins by itself when its turn comes" if desk.job.running else "waits until the queue is started"
    told = f"{entry['name']} is in the queue; it {begins}. The queue is on the page Runs."
    return Answer({"message": views.note(told)})


def _values(page: Page, choices: tuple[str, ...]) -> dict[str, Any]:
    """A request to train.

    Raises:
        LoraTrainerError: if something is missing.
    """
    if not page.dataset:
        raise DatasetError("Which images? Choose them on the page Images.")
    if not page.name:
        raise ConfigError("The LoRA has no name: give one in step 4.")
    return {
        "name": page.name, "dataset": page.dataset, "config": page.config().to_dict(),
        "resume": "resume" in choices, "overwrite": "overwrite" in choices,
        "test": bool(page.values.get("test")), "test_plan": _asked(page), "trigger": page.trigger,
    }  # fmt: skip


def _asked(page: Page) -> dict[str, str]:
    """What the page says of the test."""
    given = {"subject": page.subject, "prompts": page.values.get("test_prompts")}
    return {name: text.strip() for name, text in given.items() if isinstance(text, str) and text.strip()}


def test(desk: Desk, page: Page) -> Answer:
    """Test the LoRA of that name."""
    try:
        if not page.name:
            raise ConfigError("Which LoRA? Give its name in step 4.")
        desk.job.test({"lora": page.name, "trigger": page.trigger, **_asked(page)})
    except LoraTrainerError as error:
        return Answer({"message": views.problem(str(error))})
    return Answer({"message": ""})


test.__test__ = False  # type: ignore[attr-defined]  # it isn't one of pytest's
