"""A fold under the result: tools for finished LoRAs."""

from __future__ import annotations

import gradio as gr

from lora_trainer.ui.actions import tools
from lora_trainer.ui.binding import Form

INPUTS = ("tools_tool", "tools_files", "tools_strengths", "tools_rank", "tools_keep", "tools_form", "tools_name")


def show(form: Form) -> None:
    """One choice, the inputs that the tools share, and a button."""
    with gr.Accordion("LoRA tools", open=False, elem_id="lora_trainer_tools"):
        form.add("tools_tool", gr.Dropdown(
            choices=[(text, tool) for tool, text in tools.TOOLS.items()], value="merge", label="Tool",
            elem_id="lora_trainer_tools_tool",
        ))  # fmt: skip
        form.add("tools_files", gr.Textbox(
            label="LoRAs", lines=2, max_lines=8, elem_id="lora_trainer_tools_files",
            info="Names or paths, one a line. To extract: the base checkpoint, then the tuned one.",
        ))  # fmt: skip
        with gr.Row():
            form.add("tools_strengths", gr.Textbox(
                label="Strengths", max_lines=1, elem_id="lora_trainer_tools_strengths",
                info="Merge: one for each LoRA, such as 0.7 0.5. Bake: the one to put in.",
            ))  # fmt: skip
            form.add("tools_rank", gr.Textbox(
                label="Largest rank", max_lines=1, elem_id="lora_trainer_tools_rank",
                info="Resize, extract (16 if empty), merge (empty: nothing is lost).",
            ))  # fmt: skip
            form.add("tools_keep", gr.Textbox(
                label="Share that is kept", max_lines=1, elem_id="lora_trainer_tools_keep",
                info="Instead of one rank for all: 0.95 keeps 95 % of each change (sv_fro).",
            ))  # fmt: skip
        with gr.Row():
            form.add("tools_form", gr.Dropdown(
                choices=["kohya", "diffusers", "peft"], value="kohya", label="Format",
                elem_id="lora_trainer_tools_form", info="Convert: whose keys.",
            ))  # fmt: skip
            form.add("tools_name", gr.Textbox(
                label="Name of the result", max_lines=1, elem_id="lora_trainer_tools_name",
                info="A new file in the LoRA folder; the files above stay as they are.",
            ))  # fmt: skip
            form.add("tools_run", gr.Button("Run the tool", size="sm", elem_id="lora_trainer_tools_run"))
        form.add("tools_answer", gr.HTML(elem_id="lora_trainer_tools_answer"))


def ask(form: Form) -> None:
    """The button sends what is typed."""
    form.on(form.parts["tools_run"].click, tools.run, changes=("tools_answer",), extra=INPUTS)
