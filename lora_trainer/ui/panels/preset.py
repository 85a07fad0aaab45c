"""Panel 3: the presets as cards, and what pressing Train will do."""

from __future__ import annotations

import gradio as gr

from lora_trainer.config.presets import PRESETS
from lora_trainer.families import SD1
from lora_trainer.ui import views
from lora_trainer.ui.actions import settings
from lora_trainer.ui.binding import ALL_OPTIONS, FILLS, PLAN, Form
from lora_trainer.ui.forms import CHOICES


def show(form: Form) -> None:
    """The cards of SD 1.x until the server says which model is loaded; below them the plan."""
    with gr.Column(elem_classes=["lt-panel"], elem_id="lora_trainer_panel_preset"):
        gr.HTML(views.heading(3, "Preset", "Settings to start from"))
        offered = [preset for preset in PRESETS if SD1 in preset.families]
        preset = gr.Radio(
            choices=[(views.card_text(one.label, one.help, None, None), one.name) for one in offered],
            value=offered[0].name, show_label=False, label="Preset", elem_id="lora_trainer_preset",
        )  # fmt: skip
        form.add("preset", preset)
        form.add("plan", gr.HTML(elem_id="lora_trainer_plan"))


def ask(form: Form) -> None:
    """A chosen preset sets all options. The script presses the button: gradio 4 fires Radio.input by itself."""
    chosen = gr.Button("Preset chosen", elem_id="lora_trainer_chosen", elem_classes=[FILLS])
    form.on(chosen.click, settings.choose_preset, reads=("preset",), changes=(*ALL_OPTIONS, *PLAN))
    advised = gr.Button(CHOICES["advice"], elem_id="lora_trainer_choice_advice", elem_classes=[FILLS])
    form.on(advised.click, settings.take_advice, changes=(*ALL_OPTIONS, *PLAN))
    undo = gr.Button(CHOICES["undo"], elem_id="lora_trainer_choice_undo", elem_classes=[FILLS])
    form.on(undo.click, settings.undo, changes=(*ALL_OPTIONS, *PLAN))
