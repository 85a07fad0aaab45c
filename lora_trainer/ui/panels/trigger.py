"""Panel 2: the trigger word, and what captions are for."""

from __future__ import annotations

import gradio as gr

from lora_trainer.ui import views
from lora_trainer.ui.binding import Form


def show(form: Form) -> None:
    """The word."""
    with gr.Column(elem_classes=["lt-panel"], elem_id="lora_trainer_panel_trigger"):
        gr.HTML(views.heading(2, "Trigger word", "Calls your subject in a prompt"))
        trigger = gr.Textbox(
            max_lines=1,
            label="Trigger word",
            placeholder="taken from the folder's name",
            info="Choose one that means nothing yet, such as zwx_anna. Begin each caption with it, then describe what "
            "is to stay changeable; what captions don't mention becomes part of the trigger word.",
            elem_id="lora_trainer_trigger",
        )
        form.add("trigger", trigger)


def ask(form: Form) -> None:
    """Nothing but to be remembered."""
    form.follow("trigger", ("trigger",))
