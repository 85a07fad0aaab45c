"""The captions of the dataset: the script shows each image with its text, and asks the routes for every change."""

from __future__ import annotations

import gradio as gr

from lora_trainer.ui.binding import Form


def show(form: Form) -> None:
    """A place for the script."""
    gr.HTML('<div class="lt-empty"></div>', elem_id="lora_trainer_captions")


def ask(form: Form) -> None:
    """Nothing passes through gradio."""
