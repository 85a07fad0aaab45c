"""Panel 4: the name, and Train."""

from __future__ import annotations

import gradio as gr

from lora_trainer.ui import views
from lora_trainer.ui.actions import start
from lora_trainer.ui.binding import ALL_OPTIONS, ALL_VALUES, Form
from lora_trainer.ui.forms import CONTINUE, REFUSE, REPLACE

FOLLOWED = ("name", "existing", "test")


def show(form: Form) -> None:
    """Name, what to do with a LoRA of that name, and the buttons."""
    with gr.Column(elem_classes=["lt-panel"], elem_id="lora_trainer_panel_start"):
        gr.HTML(views.heading(4, "Name", "What the LoRA will be called in the Lora tab"))
        name = gr.Textbox(
            max_lines=1,
            label="Name of the LoRA", placeholder="my_first_lora", info="Used as <lora:NAME:0.8>.",
            elem_id="lora_trainer_name",
        )  # fmt: skip
        existing = gr.Radio(
            choices=[REFUSE, CONTINUE, REPLACE], value=REFUSE, label="If a LoRA of that name exists",
            elem_id="lora_trainer_existing",
        )  # fmt: skip
        test_after = gr.Checkbox(
            value=True, label="Test it afterwards", elem_id="lora_trainer_test_after",
            info="Images at several strengths and in other contexts, with a report.",
        )  # fmt: skip
        for part, component in zip(FOLLOWED, (name, existing, test_after), strict=True):
            form.add(part, component)
        with gr.Row(elem_id="lora_trainer_start_row"):
            form.add("start", gr.Button("Train", variant="primary", size="lg", elem_id="lora_trainer_start"))
            form.add("only_test", gr.Button("Only test it", size="lg", elem_id="lora_trainer_test"))
        form.add("message", gr.HTML(elem_id="lora_trainer_message"))


def ask(form: Form) -> None:
    """Train takes every input as the page shows it; nothing else does, save what writes the settings to a file."""
    form.on(form.parts["start"].click, start.start, reads=(*ALL_VALUES, *ALL_OPTIONS))
    form.on(form.parts["only_test"].click, start.test, reads=("name", "trigger"))
    form.follow("start", FOLLOWED)
