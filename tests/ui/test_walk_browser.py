"""From a folder of mixed photos to a started training in a real Chromium, by keyboard."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.labelled.pictures import photographs
from tests.support.browser import Page, fill, filled, go, needs_browser, pressed, value_of
from tests.support.tab_page import Served, check, set_options

pytest.importorskip("gradio", reason="needs gradio; make test-webui-pins and make test-gradio4 have it")

pytestmark = [
    pytest.mark.slow,
    needs_browser,
]
ANSWER = "#lora_trainer_check_answer"
CARDS = "#lora_trainer_captions .lt-card"


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """15 files: nine photos, one HEIC, three duplicates (copied, resized, mirrored), and two that are broken."""
    heif = pytest.importorskip("pillow_heif", reason="the tests' set-up installs pillow-heif")
    folder = tmp_path_factory.mktemp("phone")
    small = {name.split("/")[1]: picture.resize((200, 150)) for name, picture in photographs(None).items()}
    names = ["astronaut.png", "chelsea.png", "coffee.png", "coins.png", "rocket.jpg", "china.jpg", "flower.jpg",
             "motorcycle_left.png", "retina.jpg"]  # fmt: skip
    for number, name in enumerate(names):
        small[name].save(folder / f"IMG_{number}.{('jpg', 'png', 'webp')[number % 3]}", quality=95)
    heif.from_pillow(small["camera.png"].convert("RGB")).save(folder / "IMG_9.HEIC", quality=95)
    (folder / "copy.jpg").write_bytes((folder / "IMG_0.jpg").read_bytes())
    small["coffee.png"].resize((160, 120)).save(folder / "smaller.png")
    small["china.jpg"].transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "mirrored.jpg", quality=90)
    (folder / "empty.jpg").write_bytes(b" ")
    (folder / "cut.jpg").write_bytes((folder / "IMG_3.jpg").read_bytes()[:900])
    return folder


@pytest.mark.parametrize("width", [1280, 400])
def test_from_mixed_photos_to_a_started_training(page: Page, served: Served, mixed: Path, width: int) -> None:
    word = f"walk{width}"
    page.set_viewport_size({"width": width, "height": 900})
    go(page, "images")
    page.locator("#lora_trainer_subject input").fill("object")
    page.keyboard.press("Enter")
    page.wait_for_selector("#lora_trainer_subject_plan >> text=Images for an object: 10 to 30.")
    page.on("filechooser", lambda chooser: chooser.set_files([str(path) for path in sorted(mixed.iterdir())]))
    page.wait_for_function("!loraTrainer.filling()")
    pressed(page, "#lora_trainer_files_in .center:is([role=button], button)")
    page.wait_for_selector("#lora_trainer_files_in >> text=smaller")
    page.wait_for_timeout(2000)
    fill(page, "photos_word", word)
    pressed(page, "#lora_trainer_copy")
    page.wait_for_selector(f"{ANSWER} >> text=10 images copied")
    page.wait_for_selector("#lora_trainer_files_in", state="hidden")
    page.wait_for_function("document.activeElement.textContent.includes('10 images copied')")
    said = page.inner_text(ANSWER)
    assert "Left out, as another one is nearly the same: 3 images" in said, said
    assert "Not copied: empty.jpg" in said and "Not copied: cut.jpg" in said, said
    page.wait_for_selector(f"{ANSWER} .lt-readiness >> text=Ready")
    folder = next((served.output / "datasets" / word).iterdir())
    assert len(list(folder.glob("*.txt"))) == 10
    pressed(page, "#lora_trainer_captions [data-caption=open]")
    page.wait_for_selector(CARDS)
    page.focus(f"{CARDS} textarea")
    page.keyboard.press("End")
    page.keyboard.type(", on a table")
    page.keyboard.press("Tab")
    page.wait_for_selector("#lora_trainer_captions .lt-said >> text=Saved.")
    assert sum(path.read_text() == f"{word}, on a table" for path in folder.glob("*.txt")) == 1
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    pressed(page, "#lora_trainer_photos > :is(.label-wrap, button)")
    page.wait_for_selector("#lora_trainer_copy")
    box = page.locator("#lora_trainer_copy").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width, "the button is within the window"
    pressed(page, "#lora_trainer_next_images [data-page=train]")
    filled(page, name=word, trigger=word)
    set_options(page, max_train_steps="2", resolution="64")
    page.uncheck("#lora_trainer_test_after input")
    pressed(page, "#lora_trainer_start")
    page.wait_for_selector(f"#lora_trainer_progress .lt-head[data-state=done] .lt-name >> text={word}")
    assert (served.loras / f"{word}.safetensors").is_file()


def test_regularisation_images_in_a_click(page: Page, served: Served, dataset: Path) -> None:
    check(page, dataset)
    page.wait_for_selector(f"{ANSWER} .lt-check")
    pressed(page, "#lora_trainer_regularisation_fold > :is(.label-wrap, button)")
    pressed(page, "#lora_trainer_regularisation [data-regularise=make]")
    page.wait_for_selector("#lora_trainer_regularisation .lt-problem >> text=class is missing")
    page.fill("#lora_trainer_regularisation [name=lt_class]", "circle")
    page.fill("#lora_trainer_regularisation [name=lt_images]", "2")
    pressed(page, "#lora_trainer_regularisation [data-regularise=make]")
    page.wait_for_selector("#lora_trainer_regularisation .lt-good >> text=2 regularisation images of “circle” in")
    (folder,) = map(str, (served.output / "regularisation").glob("circle - tiny-world *"))
    page.wait_for_function(
        "folder => document.querySelector('#lora_trainer_reg_data_dir_option :is(input, textarea)').value === folder",
        arg=folder,
    )


def test_images_that_another_page_asked_for_are_told_too(page: Page) -> None:
    """As after a reload: the end is told, and no folder is filled in that this page didn't ask for."""
    part, option = "#lora_trainer_regularisation", "reg_data_dir_option"
    status = page.evaluate("loraTrainer.ask('/lora-trainer/status')")
    status |= {"state": "generating", "job": "another", "message": "Regularisation image 1 of 2"}
    page.route("**/lora-trainer/status", lambda route: route.fulfill(body=json.dumps(status)))
    pressed(page, "#lora_trainer_regularisation_fold > :is(.label-wrap, button)")
    page.wait_for_selector(f"{part} .lt-bar")
    status |= {"state": "done", "message": "2 regularisation images of “circle” in a folder."}
    page.wait_for_selector(
        f"{part} .lt-good >> text=in a folder. To train with them, give their folder as reg_data_dir"
    )
    assert page.is_visible(f"{part} [data-regularise=make]") and value_of(page, option) == ""


def test_the_practice_project_is_followed_step_by_step(page: Page, served: Served) -> None:
    go(page, "images")
    steps = "#lora_trainer_practice_steps [data-step={}][data-done]"
    pressed(page, "#lora_trainer_practice > :is(.label-wrap, button)")
    pressed(page, "#lora_trainer_practice_install")
    page.wait_for_selector("#lora_trainer_practice_answer >> text=The practice images are there")
    pressed(page, "#lora_trainer_check")
    page.wait_for_selector(f"{ANSWER} .lt-readiness >> text=Ready")
    pressed(page, "#lora_trainer_captions [data-caption=open]")
    for step in ("installed", "checked", "read", "model"):
        page.wait_for_selector(steps.format(step))
    assert page.locator("#lora_trainer_practice_steps [data-done]").count() == 4
    assert "0.7 to 0.9" in page.inner_text("#lora_trainer_practice")
