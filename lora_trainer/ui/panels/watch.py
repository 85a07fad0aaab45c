"""What there is to look at while it trains: the curves, the sample pictures and the log. The page's script fills it."""

from __future__ import annotations

import gradio as gr

from lora_trainer.ui.binding import Form


def show(form: Form) -> None:
    """Places for the script."""
    gr.HTML('<div class="lt-empty"></div>', elem_id="lora_trainer_loss")
    gr.HTML('<div class="lt-empty"></div>', elem_id="lora_trainer_samples")
    gr.HTML('<div class="lt-empty"></div>', elem_id="lora_trainer_log")


def ask(form: Form) -> None:
    """Nothing of gradio."""
