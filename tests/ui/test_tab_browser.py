"""The tab in a real Chromium, stand-alone: from a folder of pictures to a finished LoRA."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.config import RunConfig
from lora_trainer.fitting import PRACTICE, presets_for
from lora_trainer.hosts.base import Glance
from lora_trainer.training.folder import RunFolder
from tests.support.browser import Browser, Page, field, fill, filled, go, needs_browser, reveal, value_of
from tests.support.tab_page import (
    Served,
    check,
    compare_and_use,
    look_at_what_stopped,
    planned,
    press,
    queue_and_log,
    set_options,
    state,
    stop_and_continue_the_test,
)

pytest.importorskip("gradio", reason="needs gradio; make test-webui-pins and make test-gradio4 have it")

pytestmark = [
    pytest.mark.slow,
    needs_browser,
]


def test_the_page_as_it_looks_at_first(page: Page) -> None:
    for name in (
        "dataset", "check", "name", "trigger", "preset", "start", "stop", "pause", "progress", "loss", "samples",
        "test", "report",
    ):  # fmt: skip
        assert page.locator(f"#lora_trainer_{name}").count() >= 1, name  # gradio 3 gives the id of HTML to two elements
    go(page, "train")
    cards = page.locator("#lora_trainer_preset label")
    assert cards.count() >= 6 and "Practice" in cards.first.inner_text()
    assert page.locator("#lora_trainer_preset input:checked").count() == 1
    assert "tiny-world" in page.inner_text("#lora_trainer_plan")
    assert "told when it begins" in page.inner_text("#lora_trainer_plan"), "no invented figures"
    for button in ("stop", "pause", "resume"):
        assert not page.is_visible(f"#lora_trainer_{button}"), "nothing to stop yet"
    ids = page.evaluate("[...document.querySelectorAll('#lora_trainer [id]')].map(one => one.id)")
    ours = [one for one in ids if one.startswith("lora_trainer")]
    inputs = page.evaluate(
        "[...document.querySelectorAll('#lora_trainer :is(input, textarea, button)')].map(i => i.id)"
    )
    assert [one for one in inputs if one and inputs.count(one) > 1] == []
    assert not [one for one in ours if re.search("_(generate|interrupt|skip)$", one)], "they mean something to a WebUI"
    labels = [text.strip() for text in page.locator("#lora_trainer_pages [data-testid=block-info]").all_text_contents()]
    assert len(labels) > 50 and len(labels) == len(set(labels)), "every label is another"


@pytest.mark.parametrize("width", [1600, 420])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_runs_out_of_the_page(page: Page, dataset: Path, width: int, theme: str) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.evaluate(f"document.body.classList.toggle('dark', {str(theme == 'dark').lower()})")
    check(page, dataset)
    set_options(page, network_dim=4)
    beyond = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert beyond <= 0, f"{beyond} px wider than {width}"
    ink, paper = page.evaluate(
        "['color', 'backgroundColor'].map(what => getComputedStyle(document.querySelector("
        "what === 'color' ? '#lora_trainer .lt-step h3' : '#lora_trainer .lt-panel'))[what])"
    )
    lightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ink, paper)]
    assert abs(lightness[0] - lightness[1]) > 300, f"{ink} on {paper} can't be read in {theme}"


def test_check_shows_what_is_there_and_what_is_wrong(page: Page, dataset: Path, pictures: Path, tmp_path: Path) -> None:
    text = check(page, dataset)
    assert (
        re.search(r"6\s+images", text)
        and re.search(r"12\s+samples per epoch", text)
        and "4 images without a caption file" in text
    )
    assert page.locator("#lora_trainer_check_answer .lt-thumbs img").count() == 6
    filled(page, trigger="zwx")
    filled(page, name="zwx")
    broken = tmp_path / "broken" / "3_x"
    broken.mkdir(parents=True)
    (broken / "good.png").write_bytes((pictures / "0.png").read_bytes())
    (broken / "bad.png").write_bytes((pictures / "0.png").read_bytes()[:80])
    text = check(page, broken.parent)
    page.wait_for_selector("#lora_trainer_check_answer >> text=bad.png")
    text = check(page, "/no/such/folder")
    page.wait_for_selector("#lora_trainer_check_answer >> text=doesn't exist")
    check(page, pictures)
    page.wait_for_selector("#lora_trainer_check_answer >> text=holds images, but its name")


def test_photos_become_a_dataset(page: Page, served: Served, pictures: Path) -> None:
    go(page, "images")
    page.set_input_files("#lora_trainer_files_in input[type=file]", [str(path) for path in sorted(pictures.iterdir())])
    page.wait_for_selector("#lora_trainer_files_in >> text=0.png")
    page.wait_for_timeout(2000)
    fill(page, "photos_word", "qqball")
    page.click("#lora_trainer_photos_more > :is(.label-wrap, button)")
    fill(page, "repeats", "3")
    press(page, "copy")
    page.wait_for_selector("#lora_trainer_check_answer >> text=6 images copied")
    folder = served.output / "datasets" / "qqball" / "3_qqball"
    assert len(list(folder.glob("*.png"))) == 6 and (folder / "5.txt").read_text() == "qqball"
    assert (folder / "1.txt").read_text() == "zwx, a ball, number 1", served.log.read_text("utf-8", "replace")[-2000:]
    assert value_of(page, "dataset") == str(folder.parent)


def test_the_check_of_loose_photos_leads_to_copies(page: Page, served: Served, dataset: Path, pictures: Path) -> None:
    check(page, dataset)
    page.wait_for_selector("#lora_trainer_files_in", state="hidden")
    check(page, pictures)
    page.click("#lora_trainer_check_answer [data-photos]")
    page.wait_for_function("document.activeElement === loraTrainer.field('photos_word')")
    assert value_of(page, "photos_folder") == str(pictures)
    page.keyboard.type("qqloose")
    press(page, "copy")
    page.wait_for_selector("#lora_trainer_check_answer >> text=6 images copied")
    assert (served.output / "datasets" / "qqloose").is_dir() and (pictures / "0.png").is_file()


def test_bad_values_give_sentences(page: Page, dataset: Path) -> None:
    press(page, "start")
    page.wait_for_selector("#lora_trainer_message >> text=Which images?")
    check(page, dataset)
    page.wait_for_function("document.querySelector('#lora_trainer_name :is(input, textarea)').value !== ''")
    fill(page, "name", "a/b")
    press(page, "start")
    page.wait_for_selector("#lora_trainer_message >> text=can't be used in it")
    fill(page, "name", "fine")
    set_options(page, network_dim="-3")
    press(page, "start")
    page.wait_for_selector("#lora_trainer_message >> text=network_dim can't be -3")
    page.wait_for_selector("#lora_trainer_plan >> text=network_dim can't be -3")
    assert page.locator(".lt-head").count() == 0, "nothing was started"


def test_a_late_answer_overwrites_nothing(page: Page, served: Served, dataset: Path) -> None:
    """Reset, then at once a folder, and while that is checked a name: what was typed stays."""

    def late(route: Any) -> None:
        time.sleep(1.5)
        route.continue_()

    set_options(page)
    page.route(re.compile("/(run/predict|queue/join)"), late)
    press(page, "reset")
    page.click("#lora_trainer_reset_question [data-choice=reset]")
    fill(page, "dataset", str(dataset))
    press(page, "check")
    fill(page, "name", "mine")
    page.wait_for_selector("#lora_trainer_check_answer .lt-check", state="attached")
    filled(page, trigger="zwx")
    page.wait_for_timeout(1000)
    assert (value_of(page, "dataset"), value_of(page, "name")) == (str(dataset), "mine")


def test_a_suggestion_waits_until_the_cursor_has_left(page: Page, dataset: Path) -> None:
    """It would stand before or behind what is typed just then."""
    held: list[Any] = []
    holding = True

    def late(route: Any) -> None:
        held.append(route) if holding else route.continue_()

    fill(page, "dataset", str(dataset))
    page.route(re.compile("/(run/predict|queue/join)"), late)
    press(page, "check")
    reveal(page, "#lora_trainer_name")
    page.focus(field("name"))
    assert held, "the check is asked for"
    holding = False
    for route in held:
        route.continue_()
    filled(page, trigger="zwx")
    page.wait_for_timeout(600)
    assert value_of(page, "name") == ""
    page.focus(field("trigger"))
    filled(page, name="zwx")


def test_changes_are_told_one_after_the_other(page: Page, dataset: Path) -> None:
    """Answers that overtake each other would leave a plan that doesn't know of the last change."""
    check(page, dataset)
    page.wait_for_timeout(1500)  # what the check suggests is told, too
    flying: set[Any] = set()
    counts = [0]

    def begun(request: Any) -> None:
        if re.search("/(run/predict|queue/join)", request.url):
            flying.add(request)
            counts.append(len(flying))

    page.on("request", begun)
    page.on("requestfinished", lambda request: flying.discard(request))
    set_options(page, max_train_epochs=0, max_train_steps=24, train_batch_size=1, network_dim=4)
    page.wait_for_selector("#lora_trainer_plan >> text=24 in 2 epochs")
    assert max(counts) == 1 and len(counts) > 3, counts


def test_from_a_folder_to_a_tested_lora(page: Page, served: Served, browser: Browser, dataset: Path) -> None:
    """The whole way, with a pause, and with the browser closed and opened again in between."""
    check(page, dataset)
    page.wait_for_function("document.querySelector('#lora_trainer_name :is(input, textarea)').value !== ''")
    fill(page, "name", "whole")
    run = {"max_train_epochs": 0, "max_train_steps": 24, "train_batch_size": 1, "network_dim": 4}
    set_options(page, **run, sample_every_n_epochs=0, sample_every_n_steps=12, save_every_n_epochs=1)
    page.wait_for_selector("#lora_trainer_plan >> text=24 in 2 epochs")
    press(page, "start")
    state(page, "training")
    press(page, "pause")
    state(page, "paused", "testing", "done")
    if page.locator(".lt-head[data-state=paused]").count():
        step = page.inner_text("#lora_trainer_progress .lt-tiles")
        page.wait_for_timeout(2500)
        assert page.inner_text("#lora_trainer_progress .lt-tiles") == step, "it stands still"
        assert page.is_visible("#lora_trainer_resume") and not page.is_visible("#lora_trainer_pause")
    page.close()
    again = browser.page(served.url)
    again.wait_for_selector(".lt-head:not([data-state=idle])", state="attached")
    go(again, "train")
    assert "whole" in again.inner_text("#lora_trainer_progress"), "a new browser finds the run"
    filled(again, name="whole", dataset=str(dataset))
    if again.is_visible("#lora_trainer_resume"):
        press(again, "resume")
    again.wait_for_selector("#lora_trainer_samples td img")
    state(again, "done", "failed")
    assert again.locator(".lt-head[data-state=done]").count() == 1, again.inner_text("#lora_trainer_progress")
    again.wait_for_selector("#lora_trainer_report .chip", state="attached")
    assert again.locator("#lora_trainer_samples th").all_inner_texts()[0] == "before", "the baseline comes first"
    assert again.locator("#lora_trainer_loss polyline.mean").count() == 2, "against the base model, and by itself"
    assert again.get_attribute("#lora_trainer_page_result-button", "aria-label") == "Result, news"
    again.click("#lora_trainer_progress .lt-go")
    again.wait_for_selector("#lora_trainer_page_result")
    assert (served.loras / "whole.safetensors").is_file() and (served.loras / "whole.json").is_file()
    result = again.inner_text("#lora_trainer_report")
    assert "whole.safetensors" in result and "<lora:whole" in result
    report = json.loads((served.output / "whole" / "report.json").read_text())
    assert report["verdict"] in result.lower() and report["recommended"]["why"] in result
    assert again.locator("#lora_trainer_report .lt-picture").count() == len(report["images"])
    assert again.get_attribute("#lora_trainer_page_result-button", "aria-label") == "Result", "it has been looked at"
    broken = "[...document.querySelectorAll('#lora_trainer img')].filter(i => i.complete && !i.naturalWidth).length"
    assert again.evaluate(broken) == 0
    again.locator("#lora_trainer_report .lt-picture").nth(4).click()
    assert "Seed: 1" in again.inner_text("#lora_trainer_large pre") and again.is_visible("#lora_trainer_large .lt-send")
    again.keyboard.press("Escape")
    assert again.locator("#lora_trainer_large").count() == 0
    compare_and_use(again, served)
    stop_and_continue_the_test(again, "whole")
    again.set_viewport_size({"width": 420, "height": 900})
    assert again.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    assert again.errors == []
    again.close()


def test_an_end_that_nobody_saw_is_told_once(page: Page) -> None:
    page.evaluate("""() => {
        window.told = [];
        window.Notification = class {
            static permission = "granted";
            constructor(title, options) { window.told.push([title, options.body]); }
        };
        document.hasFocus = () => false;
        for (const state of ["training", "testing", "failed", "failed", "idle"]) {
            const error = state === "failed" ? "The disk is full." : "";
            const now = {job: "task(x)", name: "zork", state, error, message: "So far."};
            loraTrainer.status = {...loraTrainer.status, ...now};
            loraTrainer.noteEnd();
        }
    }""")
    assert page.evaluate("window.told") == [["zork has failed", "The disk is full."]]


def test_stop_saves(page: Page, served: Served, dataset: Path) -> None:
    check(page, dataset)
    page.wait_for_function("document.querySelector('#lora_trainer_name :is(input, textarea)').value !== ''")
    fill(page, "name", "stopped")
    set_options(page, max_train_epochs=0, max_train_steps=5000, train_batch_size=1, network_dim=4)
    press(page, "start")
    state(page, "training")  # until then the page shows the run of another test
    page.wait_for_selector("#lora_trainer_loss polyline.mean")
    page.wait_for_selector("#lora_trainer_start:disabled")
    started = time.monotonic()
    answered = page.evaluate("fetch('./lora-trainer/status').then(answer => answer.json()).then(found => found.state)")
    assert answered == "training" and time.monotonic() - started < 5
    queue_and_log(page)
    press(page, "stop")
    state(page, "stopped")
    assert (served.loras / "stopped.safetensors").is_file()
    fill(page, "name", "stopped")
    page.wait_for_selector("#lora_trainer_start:not(:disabled)")
    log = served.output / "stopped" / "log.jsonl"
    left = log.read_text().splitlines()
    press(page, "start")
    page.wait_for_selector("#lora_trainer_message .lt-question >> text=was interrupted")
    page.click("#lora_trainer_message [data-choice=name]")
    page.wait_for_selector("#lora_trainer_message .lt-question", state="hidden")
    assert page.evaluate("document.activeElement.closest('#lora_trainer_name') !== null")
    press(page, "start")
    page.click("#lora_trainer_message [data-choice=resume]")
    state(page, "training")
    page.wait_for_selector("#lora_trainer_loss polyline.mean")
    press(page, "stop")
    state(page, "stopped")
    assert log.read_text().splitlines()[: len(left)] == left, "the curve of before stays in it"


def test_a_run_that_a_crash_ended_is_offered(page: Page, served: Served, dataset: Path) -> None:
    folder = RunFolder(served.output, "crashed")
    folder.state.parent.mkdir(parents=True)
    folder.state.write_bytes(b"a state")
    config = RunConfig().replace(network_dim=6).to_dict()
    folder.write_run({"name": "crashed", "dataset": str(dataset), "config": config, "steps": 50, "end": None})
    rows = ({"step": step, "epoch": 1, "loss": 0.1 / step, "baseline": 0.2, "lr": {"unet": 1e-4}} for step in (1, 2, 3))
    folder.log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page.reload()
    planned(page)
    look_at_what_stopped(page, served)


def test_settings_come_back_and_kohyas_are_read(page: Page, served: Served, dataset: Path, tmp_path: Path) -> None:
    set_options(page, network_dim=7)
    remembered, end = served.output / "last-settings.json", time.monotonic() + 120
    while not (remembered.is_file() and json.loads(remembered.read_text())["options"].get("network_dim") == "7"):
        assert time.monotonic() < end, "the change is remembered"
        page.wait_for_timeout(200)
    page.reload()
    planned(page)
    filled(page, network_dim_option="7")
    kohya = {"LoRA_type": "Standard", "network_dim": 24, "learning_rate": "3e-05", "output_name": "from_kohya",
             "train_data_dir": str(dataset), "epoch": 3, "max_resolution": "64,64", "xformers": True}  # fmt: skip
    file = tmp_path / "kohya.json"
    file.write_text(json.dumps(kohya))
    set_options(page)
    page.click("#lora_trainer_files > :is(.label-wrap, button)")
    fill(page, "json_path", str(file))
    press(page, "json_load")
    page.wait_for_selector("#lora_trainer_json_answer >> text=kohya's settings were loaded")
    filled(page, network_dim_option="24")
    filled(page, name="from_kohya", dataset=str(dataset), learning_rate_option="3e-05")
    target = tmp_path / "out.json"
    fill(page, "json_path", str(target))
    press(page, "json_save_kohya")
    page.wait_for_selector("#lora_trainer_json_answer >> text=Saved as")
    assert json.loads(target.read_text())["network_dim"] == 24
    press(page, "reset")
    page.click("#lora_trainer_reset_question [data-choice=reset]")
    presets = {preset.name: preset.config() for preset in presets_for(Glance("tiny-world", resolution=64))}
    first = presets[PRACTICE].network.network_dim
    filled(page, network_dim_option=str(first))
    filled(page, name="")
    page.locator("#lora_trainer_preset label", has_text="Quick").click()
    quick = presets["quick"].network.network_dim
    assert quick != first
    filled(page, network_dim_option=str(quick))
