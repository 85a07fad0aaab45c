"""Everything under "Advanced": every option of the table in its group, settings files, and the way back."""

from __future__ import annotations

import gradio as gr

from lora_trainer.config import OPTIONS
from lora_trainer.ui.actions import settings
from lora_trainer.ui.binding import EVERYTHING, FILLS, Form
from lora_trainer.ui.fields import GROUPS, option_component
from lora_trainer.ui.forms import CHOICES
from lora_trainer.ui.panels import files
from lora_trainer.ui.views import note


def show(form: Form) -> None:
    """The whole part, folded."""
    with gr.Accordion("Advanced", open=False, elem_id="lora_trainer_advanced"):
        gr.HTML(note("A preset sets all of these. Change what you like afterwards.", kind="lt-quiet"))
        for group, (title, help) in GROUPS.items():
            with gr.Accordion(title, open=False, elem_id=f"lora_trainer_group_{group}"):
                gr.HTML(f'<p class="lt-help">{help}</p>')
                with gr.Column(elem_classes=["lt-options"]):
                    for name in _names(group):
                        form.add(name, option_component(OPTIONS[name]))
        files.show(form)
        form.add("reset", gr.Button("Reset everything", elem_id="lora_trainer_reset", size="sm"))
        form.add("reset_question", gr.HTML(elem_id="lora_trainer_reset_question"))


def ask(form: Form) -> None:
    """A change sends the options of its group."""
    for group in GROUPS:
        form.follow(group, _names(group))
    files.ask(form)
    form.on(form.parts["reset"].click, settings.ask_reset, changes=("reset_question",))
    sure = gr.Button(CHOICES["reset"], elem_id="lora_trainer_choice_reset", elem_classes=[FILLS])
    form.on(sure.click, settings.reset, changes=EVERYTHING)


def _names(group: str) -> list[str]:
    return [row.name for row in OPTIONS.values() if row.group == group]
