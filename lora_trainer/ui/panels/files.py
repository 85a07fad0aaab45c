"""Settings files: kohya's JSON and our own, in and out."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lora_trainer.ui.actions import files
from lora_trainer.ui.binding import ALL_OPTIONS, EVERYTHING, FILLS, Form, paths
from lora_trainer.ui.desk import Desk
from lora_trainer.ui.forms import Answer, Page

HELP = (
    "<p class=\"lt-help\">Load kohya's JSON, sd-scripts' TOML, settings saved here, or a run.json. "
    "Save for kohya's GUI, as sd-scripts' TOML, or for this tab and the command line. sd-scripts' dataset file is "
    "given as the folder, on the page Images.</p>"
)


def show(form: Form) -> None:
    """A place to drop a file, a path, and four buttons."""
    with gr.Accordion("Settings files (kohya's JSON)", open=False, elem_id="lora_trainer_files"):
        gr.HTML(HELP)
        form.add(
            "json",
            gr.File(
                label="Drop a JSON or TOML file here",
                file_count="single",
                file_types=[".json", ".toml"],
                elem_id="lora_trainer_json",
            ),
        )
        path = gr.Textbox(
            max_lines=1,
            label="Path of the settings file",
            info="To load from, or to save to as a new file; if empty, saved to “settings” in the output folder.",
            elem_id="lora_trainer_json_path",
        )
        form.add("json_path", path)
        with gr.Row():
            load = gr.Button("Load", elem_id="lora_trainer_json_load", size="sm", elem_classes=[FILLS])
            form.add("json_load", load)
            form.add("save_kohya", gr.Button("Save for kohya", elem_id="lora_trainer_json_save_kohya", size="sm"))
            form.add("save_toml", gr.Button("Save for sd-scripts", elem_id="lora_trainer_json_save_toml", size="sm"))
            form.add("save_own", gr.Button("Save for Train LoRA", elem_id="lora_trainer_json_save", size="sm"))
        form.add("json_answer", gr.HTML(elem_id="lora_trainer_json_answer"))


def ask(form: Form) -> None:
    """Load fills the form, save writes what the form shows."""
    form.on(form.parts["json_load"].click, _load, changes=EVERYTHING, extra=("json", "json_path"))
    for button, action in (("save_kohya", _save_kohya), ("save_toml", _save_toml), ("save_own", _save_own)):
        form.on(
            form.parts[button].click,
            action,
            reads=("name", "dataset", *ALL_OPTIONS),
            changes=("json_answer",),
            extra=("json_path",),
        )


def _load(desk: Desk, page: Page, file: Any, path: Any) -> Answer:
    return files.load(desk, page, next(iter(paths(file)), "") or str(path or ""))


def _save_kohya(desk: Desk, page: Page, path: Any) -> Answer:
    return files.save(desk, page, str(path or ""), "kohya")


def _save_toml(desk: Desk, page: Page, path: Any) -> Answer:
    return files.save(desk, page, str(path or ""), "toml")


def _save_own(desk: Desk, page: Page, path: Any) -> Answer:
    return files.save(desk, page, str(path or ""), "own")
