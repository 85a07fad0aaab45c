"""A fold at the end of the Images page: the practice project, and its steps from the first to the last."""

from __future__ import annotations

from html import escape

import gradio as gr

from lora_trainer.ui.actions import practice
from lora_trainer.ui.binding import FILLS, PLAN, Form

ABOUT = (
    '<p class="lt-help">No photos at hand? The practice model is a tiny checkpoint (12 MB) that knows simple shapes, '
    "and the practice images teach it a new one, the zorbo. It trains in minutes, even without a GPU. {what}</p>"
)
INSTALLS = "This button copies both to where the WebUI finds them; no file of yours is replaced."
IMAGES_ONLY = "This page has the model already; this button gets the images."
LOAD = "Load the practice model: at the top of the page, refresh the list of checkpoints and choose tiny-world. "
PRESET = "On the page Train, choose the preset Practice: 10 epochs, and a save every other one, which can be compared."
STEPS = (
    ("installed", "Press the button above. It fills in the folder: 18 images, each of them repeated 10 times."),
    ("checked", "Press Check. It should say Ready: enough images, sharp, without duplicates."),
    ("read", "Press Edit captions and read some: the trigger word first, then what is to stay changeable."),
    ("model", PRESET),
    ("trained", "Press Train and watch: the sample images turn into zorbos, and the loss falls a little."),
    ("tested", "Look at the page Result: which save is best, at which strength, and how sure that is."),
)
GOALS = (
    "A good result: the zorbo is recognised; it works in other colours and places; no strange noise; the file is small "
    "(under 50 MB); the best strength is about 0.7 to 0.9. If one of these isn't so, the report says what to change. "
    "Then do the same with 15 photos of your own."
)


def show(form: Form) -> None:
    """What it is, the button, and the steps, which the page's script ticks off."""
    with gr.Accordion("Practise without photos", open=False, elem_id="lora_trainer_practice"):
        gr.HTML(ABOUT.format(what=INSTALLS if form.webui else IMAGES_ONLY))
        label = "Install the practice model" if form.webui else "Get the practice images"
        button = gr.Button(label, elem_id="lora_trainer_practice_install", size="sm", elem_classes=[FILLS])
        form.add("practice_install", button)
        form.add("practice_answer", gr.HTML(elem_id="lora_trainer_practice_answer"))
        gr.HTML(steps_html(form.webui), elem_id="lora_trainer_practice_steps")


def steps_html(webui: bool) -> str:
    """The steps as a list."""
    texts = {name: (LOAD if webui and name == "model" else "") + text for name, text in STEPS}
    items = "".join(f'<li data-step="{name}"><i></i>{escape(text)}</li>' for name, text in texts.items())
    return f'<ol class="lt-steps">{items}</ol><p class="lt-help">{escape(GOALS)}</p>'


def ask(form: Form) -> None:
    """The button installs it and fills in its dataset."""
    form.on(
        form.parts["practice_install"].click,
        practice.install,
        reads=("dataset", "trigger", "name"),
        changes=("dataset", "trigger", "practice_answer", *PLAN),
    )
