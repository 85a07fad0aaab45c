"""Panel 4: the name, and Train."""

from __future__ import annotations

from functools import partial

import gradio as gr

from lora_trainer.ui import views
from lora_trainer.ui.actions import start
from lora_trainer.ui.binding import ALL_OPTIONS, ALL_VALUES, Form
from lora_trainer.ui.desk import Desk
from lora_trainer.ui.forms import CHOICES, Answer, Page

FOLLOWED = ("name", "test", "test_prompts")


def show(form: Form) -> None:
    """Name and buttons; what is there already of that name is asked about when Train is pressed."""
    with gr.Column(elem_classes=["lt-panel"], elem_id="lora_trainer_panel_start"):
        gr.HTML(views.heading(4, "Name", "What the LoRA will be called in the Lora tab"))
        name = gr.Textbox(
            max_lines=1,
            label="Name of the LoRA", placeholder="my_first_lora", info="Used as <lora:NAME:0.8>.",
            elem_id="lora_trainer_name",
        )  # fmt: skip
        test_after = gr.Checkbox(
            value=True, label="Test it afterwards", elem_id="lora_trainer_test_after",
            info="Images at several strengths and in other contexts, with a report.",
        )  # fmt: skip
        with gr.Accordion("Test prompts", open=False, elem_id="lora_trainer_test_settings"):
            prompts = gr.Textbox(
                lines=4, label="Your own test prompts", elem_id="lora_trainer_test_prompts",
                placeholder="{lora} {trigger} in a forest\n{lora} {trigger}, cyberpunk style --n blurry",
                info="One per line, instead of those of the kind. {lora} is the LoRA, {trigger} the trigger word.",
            )  # fmt: skip
        for part, component in zip(FOLLOWED, (name, test_after, prompts), strict=True):
            form.add(part, component)
        with gr.Row(elem_id="lora_trainer_start_row"):
            form.add("start", gr.Button("Train", variant="primary", size="lg", elem_id="lora_trainer_start"))
            form.add("only_test", gr.Button("Only test it", size="lg", elem_id="lora_trainer_test"))
            form.add("enqueue", gr.Button("Add to queue", size="lg", elem_id="lora_trainer_enqueue"))
        form.add("message", gr.HTML(elem_id="lora_trainer_message"))


def ask(form: Form) -> None:
    """Train takes every input as the page shows it; nothing else does, save what writes the settings to a file."""
    everything = (*ALL_VALUES, *ALL_OPTIONS)
    form.on(form.parts["start"].click, start.start, reads=everything)
    form.on(form.parts["enqueue"].click, start.enqueue, reads=everything)
    for choice in (
        one for one in CHOICES if {*one.split("+")} & {"resume", "overwrite", "queue"}
    ):  # questions' answers
        button = gr.Button(CHOICES[choice], elem_id=f"lora_trainer_choice_{choice.replace('+', '_')}")
        form.on(button.click, partial(_begin, choice), reads=everything)
    form.on(form.parts["only_test"].click, start.test, reads=("name", "trigger", "subject", "test_prompts"))
    form.follow("start", FOLLOWED)


def _begin(choice: str, desk: Desk, page: Page) -> Answer:
    first, *rest = choice.split("+")
    return start.enqueue(desk, page, *rest) if first == "queue" else start.start(desk, page, first, *rest)
