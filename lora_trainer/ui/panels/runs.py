"""The queue, all runs, and two tested LoRAs side by side; the page's script asks the routes for them."""

from __future__ import annotations

import gradio as gr

from lora_trainer.ui.actions import settings
from lora_trainer.ui.binding import EVERYTHING, FILLS, Form


def show(form: Form) -> None:
    """Places for the script."""
    gr.HTML('<div class="lt-empty"></div>', elem_id="lora_trainer_queue")
    gr.HTML('<div class="lt-empty"></div>', elem_id="lora_trainer_runs")
    gr.HTML('<div class="lt-empty"></div>', elem_id="lora_trainer_compare")


def ask(form: Form) -> None:
    """The script writes whose settings are wanted into the box and presses the button: they fill the form."""
    form.add("settings_source", gr.Textbox(label="Whose settings", elem_id="lora_trainer_settings_source"))
    use = gr.Button("Use these settings", elem_id="lora_trainer_settings_use", elem_classes=[FILLS])
    form.on(use.click, settings.use, changes=EVERYTHING, extra=("settings_source",))
