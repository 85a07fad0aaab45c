"""The Train LoRA tab: which pages it has, and which panels these have, in the order in which they stand.

Progress, pause and stop don't pass through gradio: the page's script asks the HTTP routes, so that they answer
however many generations are waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import gradio as gr

from lora_trainer.ui import views
from lora_trainer.ui.access import PAGE_KEY, Access
from lora_trainer.ui.actions import settings
from lora_trainer.ui.binding import EVERYTHING, FILLS, PLAN, Form
from lora_trainer.ui.desk import Desk
from lora_trainer.ui.panels import (
    advanced,
    captions,
    images,
    practice,
    preset,
    progress,
    regularisation,
    result,
    runs,
    start,
    tools,
    trigger,
    watch,
)

if TYPE_CHECKING:
    from lora_trainer.ui.job import Job


class Panel(Protocol):
    """A module of :mod:`lora_trainer.ui.panels`."""

    def show(self, form: Form) -> None:
        """Lay out the components, and add those that actions read or change to the form."""

    def ask(self, form: Form) -> None:
        """Bind the components to actions; hidden buttons may be made here."""


# The tab's pages from left to right, the columns of each, and the panels of these from top to bottom.
PAGES: dict[str, dict[str, tuple[Panel, ...]]] = {
    "images": {"sources": (images, captions, regularisation, practice)},
    "train": {"form": (trigger, preset, start, advanced), "live": (progress, watch)},
    "result": {"outcome": (result, tools)},
    "runs": {"history": (runs,)},
}
PANELS = tuple(panel for columns in PAGES.values() for panels in columns.values() for panel in panels)


def create_tab(job: Job, webui: bool = True, access: Callable[[], Access] = Access) -> gr.Blocks:
    """The tab.

    Args:
        webui: whether it is inside a WebUI, whose txt2img tab can be sent prompts.
        access: tells at each action who may use the tab.
    """
    form = Form(Desk(job), webui, access)
    with gr.Blocks(analytics_enabled=False) as tab, gr.Column(elem_id="lora_trainer"):
        gr.HTML(_page_facts(webui), elem_classes=["lt-hidden"])
        gr.HTML('<div class="lt-empty"></div>', elem_id="lora_trainer_offer")
        with gr.Tabs(elem_id="lora_trainer_pages"):
            for name in PAGES:
                with gr.TabItem(name.capitalize(), elem_id=f"lora_trainer_page_{name}"):
                    _show(form, name)
        with gr.Row(elem_classes=["lt-hidden"]):
            _ask(form)
            for panel in PANELS:
                panel.ask(form)
    for block in tab.blocks.values():  # the WebUI would keep today's defaults in ui-config.json, against our updates
        block.do_not_save_to_config = True
    return tab


def _show(form: Form, page: str) -> None:
    """A page: what it lacks, as the page's script finds it, and its columns."""
    gr.HTML('<div class="lt-empty"></div>', elem_id=f"lora_trainer_lacks_{page}")
    with gr.Row(elem_classes=["lt-columns"], elem_id="lora_trainer_columns" if page == "train" else None):
        for name, panels in PAGES[page].items():
            with gr.Column(elem_id=f"lora_trainer_{name}"):
                for panel in panels:
                    panel.show(form)
    gr.HTML('<div class="lt-empty"></div>', elem_id=f"lora_trainer_next_{page}")


def _ask(form: Form) -> None:
    """What the page's script asks for: the settings at its first look, and the plan whenever it is looked at again."""
    form.add("answered", gr.HTML(elem_id="lora_trainer_answered"))
    form.add("heard", gr.HTML(elem_id="lora_trainer_heard"))
    restore = gr.Button("Restore", elem_id="lora_trainer_restore", elem_classes=[FILLS])
    look = gr.Button("Look", elem_id="lora_trainer_look")
    form.on(restore.click, settings.restore, changes=EVERYTHING)
    form.on(look.click, settings.look, changes=PLAN)


def _page_facts(webui: bool) -> str:
    return views.page_facts({"key": PAGE_KEY, "webui": int(webui)})
