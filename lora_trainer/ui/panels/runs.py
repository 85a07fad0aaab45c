"""All runs with what can be done with each, and two tested LoRAs side by side; the script asks the routes for both."""

from __future__ import annotations

import gradio as gr

from lora_trainer.ui.binding import Form


def show(form: Form) -> None:
    """Places for the script."""
    gr.HTML('<div class="lt-empty"></div>', elem_id="lora_trainer_runs")
    gr.HTML('<div class="lt-empty"></div>', elem_id="lora_trainer_compare")


def ask(form: Form) -> None:
    """Nothing passes through gradio."""
