"""A fold at the end of the form: the practice project, which only a WebUI has to be given."""

from __future__ import annotations

import gradio as gr

from lora_trainer.ui.actions import practice
from lora_trainer.ui.binding import FILLS, PLAN, Form

ABOUT = (
    '<p class="lt-help">No photos at hand? The practice model is a tiny checkpoint (12 MB) that knows simple shapes. '
    "It comes with a dataset that teaches it a new one, and trains in minutes, even without a GPU. This button copies "
    "both to where the WebUI finds them; no file of yours is replaced.</p>"
)


def show(form: Form) -> None:
    """What it is, and the button."""
    if not form.webui:
        return
    with gr.Accordion("Practise without photos", open=False, elem_id="lora_trainer_practice"):
        gr.HTML(ABOUT)
        button = gr.Button(
            "Install the practice model", elem_id="lora_trainer_practice_install", size="sm", elem_classes=[FILLS]
        )
        form.add("practice_install", button)
        form.add("practice_answer", gr.HTML(elem_id="lora_trainer_practice_answer"))


def ask(form: Form) -> None:
    """The button installs it and fills in its dataset."""
    if form.webui:
        form.on(
            form.parts["practice_install"].click,
            practice.install,
            reads=("dataset", "trigger", "name"),
            changes=("dataset", "trigger", "practice_answer", *PLAN),
        )
