"""How the page's parts and the actions come together: each event sends the inputs that it names, and changes those.

Only what gradio 3.41 and 4.40 share is used.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gradio as gr

from lora_trainer.config import OPTIONS
from lora_trainer.ui import views
from lora_trainer.ui.access import Access, RefusedError, check_page
from lora_trainer.ui.actions import settings
from lora_trainer.ui.desk import Desk
from lora_trainer.ui.engine import load
from lora_trainer.ui.fields import given, shown
from lora_trainer.ui.forms import Answer

log = logging.getLogger(__name__)

PLAN = ("plan", "preset")  # what follows from every change: the plan, and the figures on the presets' cards
ALL_VALUES = (  # inputs that aren't options
    "dataset", "trigger", "preset", "name", "test", "subject", "test_prompts", "photos_folder", "photos_word",
    "repeats", "crops",
)  # fmt: skip
ALL_OPTIONS = tuple(OPTIONS)
EVERYTHING = (*ALL_VALUES, *ALL_OPTIONS, "message", "check_answer", "plan", "json_answer", "reset_question")
FILLS = "lt-fills"  # class of buttons whose answer fills the form: the page takes no input until it is there
FILLS_PANEL = "lt-fills-panel"  # the same for the button's own panel

COUNTED = ("answered", "heard")  # parts that tell the page's script that an answer is there

_answers = itertools.count(1)


class Form:
    """The page's parts by name, and what happens when somebody uses them."""

    def __init__(self, desk: Desk, webui: bool, access: Callable[[], Access] = Access) -> None:
        """Args:
        webui: whether the page is inside a WebUI, whose txt2img tab can be sent prompts.
        access: tells at each action who may use the page.
        """
        self.desk, self.webui, self.access = desk, webui, access
        self.parts: dict[str, Any] = {}

    def add(self, name: str, component: Any) -> Any:
        """A part that actions read or change."""
        assert name not in self.parts, name
        self.parts[name] = component
        return component

    def on(
        self,
        event: Callable[..., Any],
        action: Callable[..., Answer],
        reads: Sequence[str] = (),
        changes: Sequence[str] = (),
        extra: Sequence[str] = (),
    ) -> None:
        """Do something at an event.

        Args:
            action: gets the desk, the page's settings, and the values of ``extra``.
            reads: the inputs that are sent with it; all others are known from the events before.
            changes: the parts that the answer may change.
            extra: parts that are no settings, such as files.
        """
        fills = bool({*changes} & {*ALL_VALUES, *ALL_OPTIONS} - {"preset"})  # of presets only the cards' texts change
        outputs = list(dict.fromkeys((*changes, "message", *(("answered",) if fills else ()))))
        event(
            self._handler(action, reads, outputs),
            inputs=[self.parts[name] for name in (*reads, *extra)],
            outputs=[self.parts[name] for name in outputs],
            queue=False, show_progress="hidden", api_name=False,
        )  # fmt: skip

    def follow(self, panel: str, names: Sequence[str]) -> None:
        """Hear of every change of these inputs: the page's script presses this button when one of them was changed."""
        button = gr.Button("Changed", elem_id=f"lora_trainer_changed_{panel}")
        self.on(button.click, settings.changed, reads=names, changes=(*PLAN, "heard"))

    def _handler(self, action: Callable[..., Answer], reads: Sequence[str], outputs: Sequence[str]) -> Any:
        """The action as gradio calls it: off the event loop, and outside the pool that waiting generations fill."""

        def work(inputs: tuple[Any, ...]) -> Answer:
            load()
            read = zip(reads, inputs[: len(reads)], strict=True)
            sent = {name: given(name, value) if name in OPTIONS else value for name, value in read}
            return action(self.desk, self.desk.page(sent), *inputs[len(reads) :])

        async def handle(request: gr.Request, *inputs: Any) -> Any:
            try:
                check_page(self.access(), request.request.headers)
                answer = await asyncio.get_running_loop().run_in_executor(None, partial(work, inputs))
            except RefusedError as error:
                answer = Answer({"message": views.problem(str(error))})
            except Exception as error:
                log.exception("An action of the tab failed")
                sentence = f"Unexpected {type(error).__name__}: {error}. The log says more."
                answer = Answer({"message": views.problem(sentence)})
            changes = updates(answer, outputs)
            return changes if len(changes) > 1 else changes[0]  # gradio takes a list for the value of a single output

        return handle


def updates(answer: Answer, outputs: Sequence[str]) -> list[Any]:
    """The answer in the order of the outputs.

    Raises:
        ValueError: if the answer changes a part that isn't among them.
    """
    unheard = {*answer.html, *answer.values, *answer.options} - {*outputs}
    if unheard:
        raise ValueError(f"the event doesn't name {sorted(unheard)} among what it changes")
    return [_update(name, answer) for name in outputs]


def _update(name: str, answer: Answer) -> Any:
    change: dict[str, Any] = {}
    if name in COUNTED:
        change["value"] = f'<i data-answer="{next(_answers)}"></i>'
    elif name in answer.html:
        change["value"] = answer.html[name]
    elif name in answer.options:
        change["value"] = shown(name, answer.options[name])
    elif name in answer.values:
        change["value"] = answer.values[name]
    if name == "preset" and answer.cards is not None:
        change["choices"] = answer.cards
    return gr.update(**change)


def paths(files: Any) -> list[str]:
    """Paths of uploaded files: gradio 3 gives objects with a name, gradio 4 paths; one or a list of them."""
    found = files if isinstance(files, list) else [files] if files else []
    return [str(getattr(file, "name", file)) for file in found]
