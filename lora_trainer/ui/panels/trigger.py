"""Panel 2: the trigger word, and what captions are for."""

from __future__ import annotations

import gradio as gr

from lora_trainer.ui import views
from lora_trainer.ui.binding import Form


def show(form: Form) -> None:
    """The word."""
    with gr.Column(elem_classes=["lt-panel"], elem_id="lora_trainer_panel_trigger"):
        gr.HTML(views.heading(2, "Trigger and captions", "The word that will call your subject"))
        trigger = gr.Textbox(
            max_lines=1,
            label="Trigger word",
            placeholder="taken from the folder's name",
            info="A word that no one uses, such as zwx_anna. Captions begin with it and then say what else is to be "
            "seen: what a caption names stays changeable, what it leaves out becomes part of the trigger.",
            elem_id="lora_trainer_trigger",
        )
        form.add("trigger", trigger)


def ask(form: Form) -> None:
    """Nothing but to be remembered."""
    form.follow("trigger", ("trigger",))
