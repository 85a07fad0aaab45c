"""Panel 1: the way from loose photos to a training folder, that folder, and what the check found in it."""

from __future__ import annotations

import gradio as gr

from lora_trainer.dataset.plans import PLANS
from lora_trainer.dataset.texts import USUAL_ENDINGS
from lora_trainer.ui import views
from lora_trainer.ui.actions import images
from lora_trainer.ui.binding import FILLS_PANEL, PLAN, Form, paths
from lora_trainer.ui.forms import ANYTHING

PHOTO_INPUTS = ("photos_folder", "photos_word", "repeats", "crops")
KINDS = [ANYTHING, *PLANS]  # gradio 3 knows no other texts than the values
PHOTOS = (
    '<p class="lt-help">They are copied into a new training folder, upright, in sRGB and without duplicates; the '
    "originals stay as they are. A photo without a caption gets the trigger word as its caption.</p>"
)
# What browsers don't count among images on every system, beside what they do.
ENDINGS = ["image", ".heic", ".heif", ".avif", ".jxl", *USUAL_ENDINGS]


def show(form: Form) -> None:
    """What most come with, photos, then the training folder that is made of them or is there already, and the check."""
    with gr.Column(elem_classes=["lt-panel"], elem_id="lora_trainer_panel_images"):
        gr.HTML(views.heading(1, "Images", "What you want to teach, and your images of it"))
        subject = gr.Dropdown(
            choices=KINDS, value=ANYTHING, label="Kind of subject", elem_id="lora_trainer_subject",
            info="Decides how many images and which captions are needed, and what the test of the LoRA asks for.",
        )  # fmt: skip
        form.add("subject", subject)
        form.add("subject_plan", gr.HTML(elem_id="lora_trainer_subject_plan"))
        with gr.Accordion("I just have photos", open=True, elem_id="lora_trainer_photos"):  # the script folds it
            _show_photos(form)
        with gr.Row(elem_classes=["lt-inline"]):
            dataset = gr.Textbox(
                max_lines=1,
                label="Training folder",
                placeholder="/path/to/training_data, which holds 10_mytrigger",
                info="Made of your photos above, or one that you have: it holds <repeats>_<trigger word> folders, with "
                "a .txt caption beside each image.",
                elem_id="lora_trainer_dataset",
            )
            form.add("dataset", dataset)
            form.add("check", gr.Button("Check", elem_id="lora_trainer_check", size="sm"))
        gr.HTML('<div class="lt-empty"></div>', elem_id="lora_trainer_looking")
        form.add("check_answer", gr.HTML(elem_id="lora_trainer_check_answer"))


def _show_photos(form: Form) -> None:
    gr.HTML(PHOTOS)
    files = gr.File(
        label="Photos, and captions if you have some", file_count="multiple", file_types=ENDINGS,
        elem_id="lora_trainer_files_in",
    )  # fmt: skip
    form.add("files_in", files)
    folder = gr.Textbox(
        max_lines=1,
        label="Or the folder that they are in",
        placeholder="/path/to/photos",
        elem_id="lora_trainer_photos_folder",
    )
    form.add("photos_folder", folder)
    word = gr.Textbox(
        max_lines=1,
        label="Trigger word of the photos",
        placeholder="zwx_anna",
        info="Calls your subject in a prompt, and names the folder. Choose one that means nothing yet.",
        elem_id="lora_trainer_photos_word",
    )
    form.add("photos_word", word)
    with gr.Accordion("Repeats and crop", open=False, elem_id="lora_trainer_photos_more"):
        _show_more(form)
    copy = gr.Button("Make the training folder", elem_id="lora_trainer_copy", elem_classes=[FILLS_PANEL])
    form.add("copy", copy)


def _show_more(form: Form) -> None:
    repeats = gr.Textbox(
        max_lines=1,
        label="Repeats",
        value="",
        placeholder="as suits their number",
        info="How often each photo is used in one epoch.",
        elem_id="lora_trainer_repeats",
    )
    form.add("repeats", repeats)
    crops = gr.Checkbox(
        label="Crop to the subject", value=False, elem_id="lora_trainer_crops",
        info="As well as can be guessed; look at each copy afterwards and change what is wrong.",
    )  # fmt: skip
    form.add("crops", crops)


def ask(form: Form) -> None:
    """Check looks at the folder; a folder of photos is made with its trigger word."""
    shown = ("check_answer", *PLAN)
    form.on(form.parts["subject"].change, images.plan, reads=("subject",), changes=("subject_plan", *shown))
    for event in (form.parts["check"].click, form.parts["dataset"].submit):
        form.on(event, images.check, reads=("dataset", "trigger", "name", "subject"), changes=shown)
    form.on(
        form.parts["copy"].click,
        lambda desk, page, files: images.copy(desk, page, paths(files)),
        reads=("dataset", "trigger", "name", "subject", *PHOTO_INPUTS),
        changes=("dataset", "trigger", *shown),
        extra=("files_in",),
    )
    form.follow("images", ("dataset", "subject", *PHOTO_INPUTS))
