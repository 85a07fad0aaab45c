"""How the run stands: bar, buttons, notices. The page's script fills it from the status route.

Pause, Resume and Stop don't pass through gradio either: they answer however many generations are waiting.
"""

from __future__ import annotations

import gradio as gr

from lora_trainer.ui.binding import Form


def show(form: Form) -> None:
    """Places for the script, and the three buttons."""
    with gr.Column(elem_classes=["lt-panel"], elem_id="lora_trainer_panel_progress"):
        gr.HTML('<div id="lora_trainer_announce" class="lt-heard" role="status" aria-live="polite"></div>')
        gr.HTML('<div class="lt-empty"></div>', elem_id="lora_trainer_progress")
        with gr.Row(elem_id="lora_trainer_buttons"):
            gr.Button("Pause", elem_id="lora_trainer_pause", size="sm")
            gr.Button("Resume", elem_id="lora_trainer_resume", size="sm")
            gr.Button("Stop and save", variant="stop", elem_id="lora_trainer_stop", size="sm")
        gr.HTML('<div class="lt-empty"></div>', elem_id="lora_trainer_notices")


def ask(form: Form) -> None:
    """Nothing of gradio."""
