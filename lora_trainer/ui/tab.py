"""The Train LoRA tab: its layout, and the binding of its parts to the actions.

Only what gradio 3.41 and 4.40 share is used. Progress, pause and stop don't pass through gradio: the page's script
asks the HTTP routes, so that they answer however many generations are waiting.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import gradio as gr

from lora_trainer.config import OPTIONS
from lora_trainer.config.presets import PRESETS
from lora_trainer.families import SD1
from lora_trainer.ui import views
from lora_trainer.ui.access import PAGE_KEY, Access, RefusedError, check_page
from lora_trainer.ui.actions import Actions
from lora_trainer.ui.advanced import Advanced, build_advanced
from lora_trainer.ui.fields import read_options, shown
from lora_trainer.ui.forms import CONTINUE, REFUSE, REPLACE, Answer, Page

if TYPE_CHECKING:
    from lora_trainer.ui.job import Job

log = logging.getLogger(__name__)

VALUES = ("dataset", "trigger", "preset", "name", "existing", "test", "repeats")  # inputs that aren't options


@dataclass
class Form:
    """The components of the steps; ``values`` by the names in :data:`VALUES`."""

    values: dict[str, Any]
    check: Any
    check_answer: Any
    files: Any
    copy: Any
    plan: Any
    start: Any
    test: Any
    message: Any


def create_tab(job: Job, webui: bool = True, access: Callable[[], Access] = Access) -> gr.Blocks:
    """The tab.

    Args:
        webui: whether it is inside a WebUI, whose txt2img tab can be sent prompts.
        access: tells at each action who may use the tab.
    """
    with gr.Blocks(analytics_enabled=False) as tab, gr.Column(elem_id="lora_trainer"):
        gr.HTML(_page_facts(webui), elem_classes=["lt-hidden"])
        with gr.Row(elem_id="lora_trainer_columns"):
            with gr.Column(elem_id="lora_trainer_form"):
                form = _build_form()
                advanced = build_advanced()
            with gr.Column(elem_id="lora_trainer_live"):
                _build_live()
        with gr.Row(elem_classes=["lt-hidden"]):
            restore = gr.Button("Restore", elem_id="lora_trainer_restore")
            changed = gr.Button("Changed", elem_id="lora_trainer_changed")
            chosen = gr.Button("Preset chosen", elem_id="lora_trainer_chosen")  # gradio 4 fires Radio.input by itself
            infotext = gr.Textbox(label="Infotext to send", elem_id="lora_trainer_infotext")
            send = gr.Button("Send", elem_id="lora_trainer_send")
        _bind(Actions(job), access, form, advanced, restore, changed, chosen)
        if webui:
            _connect_txt2img(send, infotext)
    for block in tab.blocks.values():  # the WebUI would keep today's defaults in ui-config.json, against our updates
        block.do_not_save_to_config = True
    return tab


def _page_facts(webui: bool) -> str:
    return views.page_facts({"key": PAGE_KEY, "webui": int(webui)})


def _build_form() -> Form:
    with gr.Column(elem_classes=["lt-panel"]):
        gr.HTML(views.heading(1, "Images", "The folder with your pictures"))
        with gr.Row(elem_classes=["lt-inline"]):
            dataset = gr.Textbox(
                max_lines=1,
                label="Folder",
                placeholder="/path/to/folder that holds 10_mytrigger",
                info="It holds sub-folders named <repeats>_<trigger word>, with a .txt caption beside each picture.",
                elem_id="lora_trainer_dataset",
            )
            check = gr.Button("Check", elem_id="lora_trainer_check", size="sm")
        check_answer = gr.HTML(elem_id="lora_trainer_check_answer")
        with gr.Accordion("I just have photos", open=False, elem_id="lora_trainer_photos"):
            gr.HTML(
                '<p class="lt-help">Drop them here, or give their folder above. They are copied, never changed, into a '
                "new <code>repeats_trigger</code> folder; a photo without a caption gets the trigger word (step 2) as "
                "its caption. Better captions make a better LoRA: edit the .txt files in that folder.</p>"
            )
            files = gr.File(
                label="Photos and captions", file_count="multiple", file_types=["image", ".txt", ".caption"],
                elem_id="lora_trainer_files_in",
            )  # fmt: skip
            with gr.Row(elem_classes=["lt-inline"]):
                repeats = gr.Textbox(
                    max_lines=1,
                    label="Repeats",
                    value="10",
                    info="Uses of each photo per epoch.",
                    elem_id="lora_trainer_repeats",
                )
                copy = gr.Button("Make the training folder", elem_id="lora_trainer_copy", size="sm")
    with gr.Column(elem_classes=["lt-panel"]):
        gr.HTML(views.heading(2, "Trigger and captions", "The word that will call your subject"))
        trigger = gr.Textbox(
            max_lines=1,
            label="Trigger word",
            placeholder="taken from the folder's name",
            info="A word that no one uses, such as zwx_anna. Captions begin with it and then say what else is to be "
            "seen: what a caption names stays changeable, what it leaves out becomes part of the trigger.",
            elem_id="lora_trainer_trigger",
        )
    with gr.Column(elem_classes=["lt-panel"]):
        gr.HTML(views.heading(3, "Preset", "Where to start from"))
        offered = [preset for preset in PRESETS if SD1 in preset.families]
        preset = gr.Radio(
            choices=[(views.card_text(one.label, one.help, None, None), one.name) for one in offered],
            value=offered[0].name, show_label=False, label="Preset", elem_id="lora_trainer_preset",
        )  # fmt: skip
        plan = gr.HTML(elem_id="lora_trainer_plan")
    with gr.Column(elem_classes=["lt-panel"]):
        gr.HTML(views.heading(4, "Name", "What it will be called in the Lora tab"))
        name = gr.Textbox(
            max_lines=1,
            label="Name of the LoRA", placeholder="my_first_lora", info="Used as <lora:NAME:0.8>.",
            elem_id="lora_trainer_name",
        )  # fmt: skip
        existing = gr.Radio(
            choices=[REFUSE, CONTINUE, REPLACE], value=REFUSE, label="If there is one of that name",
            elem_id="lora_trainer_existing",
        )  # fmt: skip
        test_after = gr.Checkbox(
            value=True, label="Test it afterwards", elem_id="lora_trainer_test_after",
            info="Pictures at several strengths and in other surroundings, with a report.",
        )  # fmt: skip
        with gr.Row(elem_id="lora_trainer_start_row"):
            start = gr.Button("Train", variant="primary", size="lg", elem_id="lora_trainer_start")
            test = gr.Button("Only test it", size="lg", elem_id="lora_trainer_test")
        message = gr.HTML(elem_id="lora_trainer_message")
    inputs = (dataset, trigger, preset, name, existing, test_after, repeats)
    values = dict(zip(VALUES, inputs, strict=True))
    return Form(values, check, check_answer, files, copy, plan, start, test, message)


def _build_live() -> None:
    """What the page's script fills."""
    with gr.Column(elem_classes=["lt-panel"]):
        gr.HTML('<div class="lt-empty"></div>', elem_id="lora_trainer_progress")
        with gr.Row(elem_id="lora_trainer_buttons"):
            gr.Button("Pause", elem_id="lora_trainer_pause", size="sm")
            gr.Button("Resume", elem_id="lora_trainer_resume", size="sm")
            gr.Button("Stop and save", variant="stop", elem_id="lora_trainer_stop", size="sm")
        gr.HTML('<div class="lt-empty"></div>', elem_id="lora_trainer_notices")
    gr.HTML('<div class="lt-empty"></div>', elem_id="lora_trainer_report")
    gr.HTML('<div class="lt-empty"></div>', elem_id="lora_trainer_loss")
    gr.HTML('<div class="lt-empty"></div>', elem_id="lora_trainer_samples")


def _bind(
    actions: Actions,
    access: Callable[[], Access],
    form: Form,
    advanced: Advanced,
    restore: Any,
    changed: Any,
    chosen: Any,
) -> None:
    options = [advanced.options[name] for name in OPTIONS]
    inputs = [*form.values.values(), *options]
    outputs = [form.message, form.check_answer, form.plan, advanced.answer, *form.values.values(), *options]

    def on(event: Callable[..., Any], action: Callable[..., Answer], extra: tuple[Any, ...] = ()) -> None:
        event(
            _handler(action, access), inputs=[*inputs, *extra], outputs=outputs, queue=False, show_progress="hidden",
            api_name=False,
        )  # fmt: skip

    on(restore.click, actions.restore)
    on(changed.click, actions.changed)
    on(advanced.reset.click, actions.reset)
    on(form.check.click, actions.check)
    on(form.values["dataset"].submit, actions.check)
    on(chosen.click, actions.choose_preset)
    on(form.start.click, actions.start)
    on(form.test.click, actions.test)
    on(form.copy.click, lambda page, files: actions.copy(page, _paths(files)), (form.files,))
    on(
        advanced.load.click,
        lambda page, file, path: actions.load_settings(page, next(iter(_paths(file)), "") or str(path or "")),
        (advanced.file, advanced.path),
    )
    for button, kohya in ((advanced.save_kohya, True), (advanced.save_own, False)):
        on(button.click, partial(_save, actions, kohya), (advanced.path,))


def _save(actions: Actions, kohya: bool, page: Page, path: Any) -> Answer:
    return actions.save_settings(page, str(path or ""), kohya)


def _handler(action: Callable[..., Answer], access: Callable[[], Access]) -> Callable[..., Any]:
    """The action as gradio calls it: off the event loop, and outside the pool that waiting generations fill."""

    async def handle(request: gr.Request, *inputs: Any) -> list[Any]:
        try:
            check_page(access(), request.request.headers)
        except RefusedError as error:
            return _updates(Answer(message=views.problem(str(error))))
        count = len(VALUES)
        values = dict(zip(VALUES, inputs[:count], strict=True))
        options = read_options(OPTIONS, inputs[count : count + len(OPTIONS)])
        work = partial(action, Page(values, options), *inputs[count + len(OPTIONS) :])
        try:
            answer = await asyncio.get_running_loop().run_in_executor(None, work)
        except Exception as error:
            log.exception("An action of the tab failed")
            answer = Answer(message=views.problem(f"Unexpected {type(error).__name__}: {error}. The log says more."))
        return _updates(answer)

    return handle


def _updates(answer: Answer) -> list[Any]:
    """The answer in the order of the outputs."""
    pieces = (answer.message, answer.check, answer.plan, answer.kohya)
    updates = [gr.update() if piece is None else gr.update(value=piece) for piece in pieces]
    for name in VALUES:
        change: dict[str, Any] = {"value": answer.values[name]} if name in answer.values else {}
        if name == "preset" and answer.cards is not None:
            change["choices"] = answer.cards
        updates.append(gr.update(**change))
    updates += [
        gr.update(value=shown(name, answer.options[name])) if name in answer.options else gr.update()
        for name in OPTIONS
    ]
    return updates


def _paths(files: Any) -> list[str]:
    """Paths of uploaded files: gradio 3 gives objects with a name, gradio 4 paths; one or a list of them."""
    found = files if isinstance(files, list) else [files] if files else []
    return [str(getattr(file, "name", file)) for file in found]


def _connect_txt2img(button: Any, infotext: Any) -> None:
    """Make the button fill the txt2img tab from the infotext, as "Send to txt2img" does everywhere in the WebUI."""
    from modules import infotext_utils

    infotext_utils.register_paste_params_button(
        infotext_utils.ParamBinding(paste_button=button, tabname="txt2img", source_text_component=infotext)
    )
