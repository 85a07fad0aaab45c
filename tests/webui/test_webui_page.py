"""The tab inside a real WebUI, in a real Chromium: train, look, send to txt2img."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browser import Browser, Page, fill, filled, go, needs_browser, opened
from tests.support.tab_page import press, state
from tests.webui.server import WebUI

pytestmark = [
    pytest.mark.slow,
    needs_browser,
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with opened() as found:
        yield found


@pytest.fixture
def page(webui: WebUI, browser: Browser) -> Iterator[Page]:
    found = browser.page(webui.url)
    open_tab(found)
    yield found
    assert of_ours(found) == []
    found.close()


def of_ours(page: Page) -> list[str]:
    """Errors that a script of the extension threw; the WebUIs' own pages throw some without it."""
    return [error for error in page.errors if "lora_trainer" in error]


def open_tab(page: Page) -> None:
    page.wait_for_selector("#txt2img_prompt textarea")
    page.locator("#tabs > .tab-nav > button", has_text="Train LoRA").click()
    page.wait_for_selector("#lora_trainer_plan :is(.lt-plan, .lt-problem)", state="attached")


def option(page: Page, group: str, **values: object) -> None:
    go(page, "train")
    if not page.is_visible("#lora_trainer_reset"):
        page.click("#lora_trainer_advanced > .label-wrap")
    page.click(f"#lora_trainer_group_{group} > .label-wrap")
    for name, value in values.items():
        fill(page, f"{name}_option", str(value))


def test_from_a_folder_to_txt2img(page: Page, webui: WebUI, browser: Browser, dataset: Path) -> None:
    assert page.locator("#tab_lora_trainer #lora_trainer").count() == 1
    go(page, "train")
    page.click("#lora_trainer_advanced > .label-wrap")
    page.click("#lora_trainer_reset")
    page.click("#lora_trainer_reset_question [data-choice=reset]")
    filled(page, name="")
    fill(page, "dataset", str(dataset))
    page.click("#lora_trainer_check")
    page.wait_for_selector("#lora_trainer_check_answer .lt-check")
    filled(page, name="zorb")
    filled(page, trigger="zorb")
    fill(page, "name", "page")
    option(page, "optimizer", max_train_epochs=0, max_train_steps=12)
    option(page, "dataset", resolution=64, train_batch_size=1)
    option(page, "sample", sample_every_n_epochs=0, sample_every_n_steps=6, sample_prompts="zorb --w 64 --h 64 --s 2")
    page.wait_for_selector("#lora_trainer_plan >> text=12 in")
    if not webui.kind.tiny:  # an hour with a processor alone
        page.locator("#lora_trainer_test_after input").uncheck()
    press(page, "start")
    begun = ".lt-head:is([data-state=preparing], [data-state=training])"
    page.wait_for_selector(f"#lora_trainer_message .lt-question, {begun}")
    if page.locator("#lora_trainer_message .lt-question").count():  # of an earlier run of these tests
        page.click("#lora_trainer_message [data-choice=overwrite]")
    page.wait_for_selector(begun)
    assert webui.status()["name"] == "page"
    page.close()
    again = browser.page(webui.url)
    open_tab(again)
    go(again, "train")
    again.wait_for_selector(".lt-head:not([data-state=idle]) >> text=page")
    state(again, "done", "failed", timeout=1_200_000)
    assert webui.status()["state"] == "done", webui.status()["message"]
    assert again.locator("#lora_trainer_samples td img").count() == 3
    assert again.locator("#lora_trainer_samples th").all_text_contents() == ["before", "step 6", "step 12"]
    if not webui.kind.tiny:
        webui.post("/lora-trainer/test", {"lora": "page", "steps": 1, "strengths": "0,1", "seeds": "1", **SHORT})
        assert webui.finished()["state"] == "done"
    go(again, "result")
    again.wait_for_selector("#lora_trainer_report .chip")
    assert "page.safetensors" in again.inner_text("#lora_trainer_report")

    for key in ("Control+Enter", "Alt+Enter", "Escape"):  # Generate, Skip and Interrupt in other tabs
        again.keyboard.press(key)
    shots = webui.get("/lora-trainer/report/page")["images"]
    number = next(n for n, shot in enumerate(shots) if shot["kind"] == "strength" and shot["strength"] == 1.0)
    again.locator(f"#lora_trainer_report .lt-picture >> nth={at_strength_one(shots)}").click()
    again.click("#lora_trainer_large .lt-send")
    again.wait_for_function("document.querySelector('#txt2img_prompt textarea').value.includes('<lora:page:')")
    assert again.input_value("#txt2img_prompt textarea") == shots[number]["prompt"]
    assert "<lora:page:1.0>" in shots[number]["prompt"]
    again.wait_for_function(f"document.querySelector('#txt2img_seed input').value === '{shots[number]['seed']}'")
    assert again.is_visible("#txt2img_generate"), "txt2img is shown"
    assert of_ours(again) == []
    again.close()


SHORT = {"measures": False, "prompts": ["zorb in a forest"]}  # of a test


def at_strength_one(shots: list[dict[str, object]]) -> int:
    """Where in the table of strengths, row by row, the first seed's picture at strength 1 stands."""
    strengths = list(dict.fromkeys(shot["strength"] for shot in shots if shot["kind"] == "strength"))
    return strengths.index(1.0)


def test_inputs_stay_out_of_the_webuis_own_defaults(page: Page, webui: WebUI) -> None:
    assert "lora_trainer/" not in (webui.data / "ui-config.json").read_text()
