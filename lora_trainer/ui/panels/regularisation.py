"""A fold for regularisation images: the script asks the routes, nothing passes through gradio."""

from __future__ import annotations

import gradio as gr

from lora_trainer.ui.binding import Form


def show(form: Form) -> None:
    """A place for the script."""
    with gr.Accordion("Regularisation images", open=False, elem_id="lora_trainer_regularisation_fold"):
        gr.HTML('<div class="lt-empty"></div>', elem_id="lora_trainer_regularisation")


def ask(form: Form) -> None:
    """Nothing passes through gradio."""
