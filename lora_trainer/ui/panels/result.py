"""The finished LoRA: where it is, how to use it, the test's grids and verdict; and "Send to txt2img"."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lora_trainer.ui.binding import Form


def show(form: Form) -> None:
    """A place for the script."""
    gr.HTML('<div class="lt-empty"></div>', elem_id="lora_trainer_report")


def ask(form: Form) -> None:
    """The script writes the picture's settings into the box and presses the button."""
    infotext = gr.Textbox(label="Infotext to send", elem_id="lora_trainer_infotext")
    send = gr.Button("Send", elem_id="lora_trainer_send")
    if form.webui:
        _connect_txt2img(send, infotext)


def _connect_txt2img(button: Any, infotext: Any) -> None:
    """Make the button fill the txt2img tab from the infotext, as "Send to txt2img" does everywhere in the WebUI."""
    from modules import infotext_utils

    infotext_utils.register_paste_params_button(
        infotext_utils.ParamBinding(paste_button=button, tabname="txt2img", source_text_component=infotext)
    )
