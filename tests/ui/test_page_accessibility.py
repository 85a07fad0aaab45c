"""The tab and the report with axe-core and by keyboard alone: every state, light and dark, on a desk and on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browser import Browser, Page, fill, go, needs_browser, serious_findings
from tests.support.tab_page import Served, check, press, set_options, state

pytest.importorskip("gradio", reason="needs gradio; make test-webui-pins and make test-gradio4 have it")

pytestmark = [
    pytest.mark.slow,
    needs_browser,
]
WIDTHS, THEMES = (1280, 400), ("light", "dark")


def looks(page: Page) -> Iterator[str]:
    """Each width with each theme."""
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        for theme in THEMES:
            page.evaluate(f"document.body.classList.toggle('dark', {str(theme == 'dark').lower()})")
            page.wait_for_timeout(400)  # colours fade into each other
            yield f"{width} px, {theme}"


def sweep(page: Page, what: str, within: str = "#lora_trainer") -> None:
    """Nothing serious, and nothing wider than the window."""
    for look in looks(page):
        assert serious_findings(page, within) == [], f"{what}, {look}"
        beyond = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert beyond <= 0, f"{what}, {look}: {beyond} px too wide"
    page.set_viewport_size({"width": 1280, "height": 900})


def test_axe_sees_what_is_wrong(page: Page) -> None:
    """The check itself can fail."""
    page.evaluate("document.querySelector('#lora_trainer h3').style.color = '#ccc'")
    page.evaluate("document.body.classList.remove('dark')")
    assert any("color-contrast" in line for line in serious_findings(page, "#lora_trainer"))


def test_idle_checked_and_advanced(page: Page, dataset: Path, tmp_path: Path) -> None:
    for name in ("images", "train", "result", "runs"):
        go(page, name)
        sweep(page, f"{name} at first")
    many = tmp_path / "many" / "2_zwx"
    many.mkdir(parents=True)
    for path in (dataset / "2_zwx").iterdir():
        (many / path.name).write_bytes(path.read_bytes())
    check(page, dataset)
    page.wait_for_selector("#lora_trainer_captions [data-caption=open]")
    page.wait_for_selector("#lora_trainer_looking .lt-bar", state="detached")
    place = "document.querySelector('#lora_trainer_next_images').getBoundingClientRect().top"
    before = page.evaluate(place)
    for number in range(40):
        (many / f"a rather long name as cameras give them {number}.png").write_bytes(b"no picture")
    check(page, many.parent)
    page.wait_for_selector("#lora_trainer_check_answer summary >> text=Skipped (40)")
    page.wait_for_selector("#lora_trainer_looking .lt-bar", state="detached")  # it goes with the next status
    assert page.evaluate(place) - before < 120, "skipped files don't push the way on out of sight"
    sweep(page, "a checked dataset")
    set_options(page, network_dim=4, learning_rate=0, sample_every_n_steps=5)
    page.wait_for_selector("#lora_trainer_plan .lt-problem, #lora_trainer_plan .lt-plan")
    sweep(page, "Advanced")


def test_pages_are_walked_by_keyboard(page: Page) -> None:
    """As a list of tabs: arrow keys change the page, Tab goes into it; a way shown leads to the page it names."""
    head = "#lora_trainer_page_{}-button"
    page.focus(head.format("images"))
    for key, name in (("ArrowRight", "train"), ("End", "runs"), ("ArrowRight", "images"), ("ArrowLeft", "runs")):
        page.keyboard.press(key)
        page.wait_for_selector(f"#lora_trainer_page_{name}")
        page.wait_for_function("id => document.activeElement.id === id", arg=head.format(name)[1:])
        assert page.get_attribute(head.format(name), "aria-selected") == "true"
        assert page.locator("#lora_trainer_pages [role=tab][aria-selected=true]").count() == 1
    page.click(head.format("train"))
    page.wait_for_function("id => document.activeElement.id === id", arg=head.format("train")[1:])
    page.keyboard.press("Tab")
    assert page.inner_text("*:focus") == "Go to Images"
    page.keyboard.press("Enter")
    page.wait_for_selector("#lora_trainer_page_images")
    page.wait_for_function("id => document.activeElement.id === id", arg=head.format("images")[1:])


def test_folds_open_by_keyboard(page: Page) -> None:
    go(page, "train")
    head = page.locator("#lora_trainer_advanced > .label-wrap")
    for key, opened in (("Enter", "true"), (" ", "false")):
        head.focus()
        page.keyboard.press(key)
        page.wait_for_function(
            "opened => document.querySelector('#lora_trainer_advanced > .label-wrap').ariaExpanded === opened",
            arg=opened,
        )
        assert page.is_visible("#lora_trainer_reset") is (opened == "true")


def test_a_run_from_train_to_the_picture(page: Page, served: Served, browser: Browser, dataset: Path) -> None:
    """Train at the foot of the form on a phone; then the running training, the tested LoRA, a picture, the report."""
    check(page, dataset)
    page.wait_for_function("document.querySelector('#lora_trainer_name :is(input, textarea)').value !== ''")
    fill(page, "name", "seen")
    set_options(page, max_train_epochs=0, max_train_steps=5000, train_batch_size=1, network_dim=4)
    page.wait_for_selector("#lora_trainer_plan >> text=5 000 in")
    page.set_viewport_size({"width": 400, "height": 900})
    page.emulate_media(reduced_motion="reduce")
    press(page, "start")
    state(page, "training")
    page.wait_for_function("document.activeElement.id === 'lora_trainer_panel_progress'")
    top = page.evaluate("document.querySelector('#lora_trainer_panel_progress').getBoundingClientRect().top + scrollY")
    assert top < 120, f"the progress is {top} px down"
    page.wait_for_function("scrollY < 120")
    assert page.evaluate("getComputedStyle(document.querySelector('.lt-dot')).animationName") == "none"
    heard = page.locator("#lora_trainer_announce")
    assert heard.get_attribute("role") == "status" and "seen" in heard.inner_text()
    page.wait_for_selector("#lora_trainer_loss polyline.mean")
    press(page, "pause")
    state(page, "paused")
    sweep(page, "a running training")
    press(page, "stop")
    state(page, "stopped", "failed")
    page.wait_for_selector("#lora_trainer_test:not(:disabled)")
    press(page, "test")
    state(page, "done", "failed")
    page.wait_for_selector("#lora_trainer_report .chip", state="attached")
    page.wait_for_function("document.querySelector('#lora_trainer_announce').textContent.startsWith('Done')")
    sweep(page, "a finished training")
    go(page, "result")
    sweep(page, "a finished test")
    sheet = page.locator("#lora_trainer_report .scroll").first
    assert sheet.evaluate("box => box.scrollWidth - box.clientWidth") <= 0, "every strength is to be seen at 1280 px"
    picture_by_keyboard(page)
    go(page, "runs")
    page.wait_for_selector("#lora_trainer_runs .lt-runs")
    page.click("#lora_trainer_runs [data-act=delete] >> nth=0")
    sweep(page, "the list of runs, and a question")
    page.click("#lora_trainer_runs [data-act=cancel]")
    page_of_report = browser.page(f"{served.url}lora-trainer/report/seen/report.html")
    for scheme in THEMES:
        page_of_report.emulate_media(color_scheme=scheme)
        sweep(page_of_report, f"the report, {scheme}", "body")
    page_of_report.close()


def picture_by_keyboard(page: Page) -> None:
    """Open a picture, go round in its dialog, and come back to where one was."""
    page.locator("#lora_trainer_report .lt-picture").nth(2).focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#lora_trainer_large")
    sweep(page, "a picture", "#lora_trainer_large")
    for _ in range(6):
        page.keyboard.press("Tab")
        outside = page.evaluate("document.activeElement !== document.body && !document.activeElement.closest('dialog')")
        assert not outside, "the focus stays in the dialog"
    page.keyboard.press("Escape")
    assert page.locator("#lora_trainer_large").count() == 0
    assert page.evaluate("document.activeElement.className") == "lt-picture", "the focus goes back"
