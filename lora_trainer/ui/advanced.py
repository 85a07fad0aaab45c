"""Everything under "Advanced": every option of the table in its group, settings files, and the way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from lora_trainer.config import OPTIONS
from lora_trainer.ui.fields import GROUPS, option_component
from lora_trainer.ui.views import note


@dataclass
class Advanced:
    """The components: ``options`` by name, and those of the settings files."""

    options: dict[str, Any]
    file: Any
    path: Any
    load: Any
    save_kohya: Any
    save_own: Any
    answer: Any
    reset: Any


def build_advanced() -> Advanced:
    """The whole part, folded; call it inside a layout."""
    options: dict[str, Any] = {}
    with gr.Accordion("Advanced", open=False, elem_id="lora_trainer_advanced"):
        gr.HTML(note("Choosing a preset sets all of this. Change what you like afterwards.", kind="lt-quiet"))
        for group, (title, help) in GROUPS.items():
            with gr.Accordion(title, open=False, elem_id=f"lora_trainer_group_{group}"):
                gr.HTML(f'<p class="lt-help">{help}</p>')
                with gr.Column(elem_classes=["lt-options"]):
                    for row in OPTIONS.values():
                        if row.group == group:
                            options[row.name] = option_component(row)
        with gr.Accordion("Settings files (kohya's JSON)", open=False, elem_id="lora_trainer_files"):
            file, path, load, save_kohya, save_own, answer = _files()
        reset = gr.Button("Reset everything", elem_id="lora_trainer_reset", size="sm")
    return Advanced(options, file, path, load, save_kohya, save_own, answer, reset)


def _files() -> tuple[Any, Any, Any, Any, Any, Any]:
    gr.HTML(
        "<p class=\"lt-help\">Load: kohya's JSON, sd-scripts' names, our own, or a run.json. "
        "Save: as kohya's form reads it, or as our command line does.</p>"
    )
    file = gr.File(label="Drop a JSON here", file_count="single", file_types=[".json"], elem_id="lora_trainer_json")
    path = gr.Textbox(
        max_lines=1,
        label="Path of the settings file",
        info="To load from; to save to (empty: the folder “settings” among the outputs).",
        elem_id="lora_trainer_json_path",
    )
    with gr.Row():
        load = gr.Button("Load", elem_id="lora_trainer_json_load", size="sm")
        save_kohya = gr.Button("Save for kohya", elem_id="lora_trainer_json_save_kohya", size="sm")
        save_own = gr.Button("Save as ours", elem_id="lora_trainer_json_save", size="sm")
    return file, path, load, save_kohya, save_own, gr.HTML(elem_id="lora_trainer_json_answer")
