"""The caption editor and the plan in a real Chromium."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from lora_trainer.dataset.prepare import prepare
from tests.support.browser import Page, go, needs_browser, pressed, serious_findings
from tests.support.tab_page import check, set_options

pytest.importorskip("gradio", reason="needs gradio; make test-webui-pins and make test-gradio4 have it")

pytestmark = [
    pytest.mark.slow,
    needs_browser,
]
CARDS = "#lora_trainer_captions .lt-card"
SAID = "#lora_trainer_captions .lt-said"


@pytest.fixture
def folder(dataset: Path, tmp_path: Path) -> Path:
    """A dataset of its own: two captions, four images without one."""
    mine = tmp_path / "mine" / "2_zwx"
    shutil.copytree(dataset / "2_zwx", mine)
    return mine


def open_captions(page: Page, folder: Path) -> None:
    check(page, folder.parent)
    page.click("#lora_trainer_captions [data-caption=open]")
    page.wait_for_selector(CARDS)


def test_captions_are_edited_filtered_and_taken_back(page: Page, folder: Path) -> None:
    before = {path.name: path.read_text() for path in folder.glob("*.txt")}
    open_captions(page, folder)
    assert page.locator(CARDS).count() == 6
    page.wait_for_function(
        "where => [...document.querySelectorAll(where + ' img')].every(i => i.complete && i.naturalWidth)", arg=CARDS
    )
    area = page.locator(f"{CARDS} textarea").nth(5)
    assert area.get_attribute("placeholder") == "zwx", "what is trained without a caption"
    area.fill("zwx, green ball")
    page.wait_for_selector(f"{CARDS}:nth-child(6) .lt-count >> text=/^[4-9] of 75 tokens/")
    page.keyboard.press("Tab")
    page.wait_for_selector(f"{SAID} >> text=Saved.")
    assert (folder / "5.txt").read_text() == "zwx, green ball"
    page.click("#lora_trainer_captions [data-tag='green ball']")
    assert page.locator(CARDS).count() == 1
    page.fill("#lora_trainer_captions [name=lt_words]", "photo")
    page.click("#lora_trainer_captions [data-caption=append]")
    page.wait_for_selector(f"{SAID} >> text=1 caption changed.")
    assert (folder / "5.txt").read_text() == "zwx, green ball, photo"
    page.click("#lora_trainer_captions [data-tag='green ball']")
    page.fill("#lora_trainer_captions [name=lt_words]", "word " * 80)
    page.click("#lora_trainer_captions [data-caption=append]")
    page.wait_for_selector(f"{SAID} >> text=6 captions changed.")
    page.wait_for_selector(f"{CARDS} .lt-cut >> text=word word")
    for said in ("6 captions changed.", "1 caption changed.", "1 caption changed."):
        page.click("#lora_trainer_captions [data-caption=undo]")
        page.wait_for_selector(f"{SAID} >> text={said}")
        page.wait_for_function(
            "said => document.querySelector('#lora_trainer_captions .lt-said').textContent === said", arg=said
        )
        page.evaluate("document.querySelector('#lora_trainer_captions .lt-said').textContent = ''")
    assert {path.name: path.read_text() for path in folder.glob("*.txt")} == before
    assert page.is_disabled("#lora_trainer_captions [data-caption=undo]")
    assert page.errors == []


def test_what_somebody_else_wrote_is_not_overwritten(page: Page, folder: Path) -> None:
    open_captions(page, folder)
    (folder / "5.txt").write_text("theirs")
    page.locator(f"{CARDS} textarea").nth(5).fill("mine")
    page.keyboard.press("Tab")
    page.wait_for_selector(f"{SAID} >> text=changed meanwhile")
    assert (folder / "5.txt").read_text() == "theirs"


def test_many_images_come_in_portions_and_their_pictures_when_they_are_near(page: Page, folder: Path) -> None:
    for number in range(200):
        shutil.copy(folder / "0.png", folder / f"more{number:03}.png")
    held: list[Any] = []
    page.route("**/thumbnail?*", lambda route: held.append(route))  # none is answered
    open_captions(page, folder)
    page.wait_for_timeout(1000)
    assert page.locator(CARDS).count() < 206 and 0 < len(held) < 100, "not all at once"
    while page.is_visible("#lora_trainer_captions .lt-more"):
        page.locator("#lora_trainer_captions .lt-more").scroll_into_view_if_needed()
        page.wait_for_timeout(100)
    assert page.locator(CARDS).count() == 206
    wanted = f"[...document.querySelectorAll('{CARDS} img')].map(image => image.hasAttribute('src'))"
    page.wait_for_function(f"{wanted}.at(-1) && !{wanted}[0] && {wanted}.filter(Boolean).length < 100")
    page.unroute("**/thumbnail?*")
    page.locator("#lora_trainer_captions .lt-shelf").evaluate("shelf => (shelf.scrollTop = 0)")
    page.wait_for_function(f"document.querySelector('{CARDS} img').naturalWidth > 0")


@pytest.mark.parametrize("width", [1280, 400])
def test_the_editor_fits_and_can_be_used_by_all(page: Page, folder: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    open_captions(page, folder)
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    for theme in ("light", "dark"):
        page.evaluate(f"document.body.classList.toggle('dark', {str(theme == 'dark').lower()})")
        assert serious_findings(page, "#lora_trainer_captions") == [], theme


def test_the_kind_of_subject_says_what_it_takes(page: Page, folder: Path) -> None:
    check(page, folder.parent)
    page.locator("#lora_trainer_subject input").click()
    page.locator("#lora_trainer_subject input").fill("style")
    page.keyboard.press("Enter")
    page.wait_for_selector("#lora_trainer_subject_plan >> text=Images for a style: 20 to 50.")
    page.wait_for_selector("#lora_trainer_check_answer >> text=6 images are few for a style")
    page.reload()
    page.wait_for_selector("#lora_trainer_subject_plan >> text=Images for a style: 20 to 50.")


def test_an_image_is_shown_as_training_sees_it(page: Page, folder: Path) -> None:
    open_captions(page, folder)
    set_options(page, caption_suffix="bright", train_batch_size="")
    page.check("#lora_trainer_flip_aug_option input")
    go(page, "images")
    card = page.locator(f"{CARDS} .lt-picture").first
    card.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#lora_trainer_image .lt-uses li:nth-child(4) >> text=bright")
    text = page.inner_text("#lora_trainer_image")
    assert "64x64 px, trained at 64x64 px" in text and "From use to use, at random: mirrored or not." in text
    assert page.evaluate("[...document.querySelectorAll('.lt-uses img')].every(i => i.naturalWidth === 64)")
    assert serious_findings(page, "#lora_trainer_image") == []
    page.keyboard.press("Escape")
    page.wait_for_selector("#lora_trainer_image", state="detached")
    assert card.evaluate("card => card === document.activeElement")


def test_a_click_applies_a_remedy_and_another_takes_it_back(page: Page, folder: Path) -> None:
    shutil.copy(folder / "0.png", folder / "copy.png")
    check(page, folder.parent)
    page.click("#lora_trainer_check_answer [data-kind=duplicate] summary")
    page.click("#lora_trainer_check_answer [data-kind=duplicate] .lt-file")
    page.wait_for_selector("#lora_trainer_image .lt-uses img")
    page.keyboard.press("Escape")
    page.wait_for_selector("#lora_trainer_image", state="detached")
    page.focus("#lora_trainer_check_answer [data-fix=duplicate]")
    page.keyboard.press("Enter")
    page.wait_for_selector("#lora_trainer_check_answer >> text=Done: 1 file set aside")
    assert page.locator("[data-fix=duplicate]").count() == 0
    (aside,) = (folder.parent / "set-aside").iterdir()
    assert aside.name in ("copy.png", "0.png") and not (folder / aside.name).exists()
    assert serious_findings(page, "#lora_trainer_check_answer") == []
    page.click("[data-fix=undo]")
    page.wait_for_selector("#lora_trainer_check_answer [data-fix=duplicate]")
    assert (folder / "copy.png").exists() and (folder / "0.png").exists()


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    """What was prepared of three larger photos."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(3):
        image = Image.new("RGB", (320, 240), (60, 60 + 60 * number, 90))
        ImageDraw.Draw(image).ellipse((180, 60, 280, 160), fill="orange")
        image.save(photos / f"{number}.jpg")
    return prepare([photos], tmp_path / "set", "zwx", 2).target


@pytest.mark.parametrize("width", [1280, 400])
def test_an_image_is_cropped_by_keys_and_pointer_and_made_whole_again(page: Page, copies: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 850})
    before = (copies / "0.jpg").read_bytes()
    open_captions(page, copies)
    page.locator(f"{CARDS} .lt-picture").first.click()
    page.wait_for_selector("#lora_trainer_image .lt-crop")
    frame, size = page.locator(".lt-crop"), page.locator(".lt-size")
    page.wait_for_function("document.querySelector('.lt-stage img').naturalWidth > 0")
    frame.focus()
    first = frame.bounding_box()
    for key in ("-", "-", "-", "Shift+ArrowRight"):
        page.keyboard.press(key)
    second = frame.bounding_box()
    assert second["width"] < first["width"] and second["x"] > first["x"]
    corner = page.locator(".lt-crop [data-corner=nw]").bounding_box()
    page.mouse.move(corner["x"] + 15, corner["y"] + 15)
    page.mouse.down()
    page.mouse.move(corner["x"] + 45, corner["y"] + 75, steps=4)
    page.mouse.up()
    third = frame.bounding_box()
    assert third["width"] < second["width"] and abs(third["x"] + third["width"] - second["x"] - second["width"]) < 2
    page.select_option("[name=lt_shape]", label="64 × 64, square")
    wide, high = map(int, re.match(r"(\d+) × (\d+) of 320 × 240 px", size.inner_text()).groups())
    assert abs(wide - high) <= 1
    assert serious_findings(page, "#lora_trainer_image") == []
    page.click("[data-crop=set]")
    page.wait_for_selector("#lora_trainer_image >> text=Cropped. The photo itself stays as it is.")
    with Image.open(copies / "0.png") as image:
        assert abs(image.width - wide) <= 2 and abs(image.height - high) <= 2
    assert page.evaluate("document.activeElement.dataset.crop") == "undo"
    page.keyboard.press("Enter")
    page.wait_for_selector("#lora_trainer_image >> text=It is whole again.")
    assert (copies / "0.jpg").read_bytes() == before and not (copies / "0.png").exists()
    pressed(page, "[data-crop=right]")
    page.wait_for_selector("#lora_trainer_image >> text=Rotated to the right.")
    page.wait_for_function(
        "(picture => picture.naturalHeight > picture.naturalWidth)(document.querySelector('.lt-stage img'))"
    )
    page.wait_for_selector("#lora_trainer_image .lt-seen >> text=240x320 px")
    assert page.evaluate("document.activeElement.dataset.crop") == "right"
    pressed(page, "[data-crop=left]")
    page.wait_for_selector("#lora_trainer_image >> text=Rotated to the left.")
    assert (copies / "0.jpg").read_bytes() == before and not (copies / "0.png").exists()
    page.keyboard.press("Escape")
    page.wait_for_selector("#lora_trainer_image", state="detached")
    assert page.evaluate("document.activeElement.dataset.image") == "2_zwx/0.jpg"
