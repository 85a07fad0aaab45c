"""Captions that a captioner writes, in a real Chromium: keyboard only, at both widths."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import Page, needs_browser, pressed, serious_findings
from tests.support.captioners import make_wd14
from tests.support.tab_page import check

pytest.importorskip("gradio", reason="needs gradio; make test-webui-pins and make test-gradio4 have it")

pytestmark = [
    pytest.mark.slow,
    needs_browser,
]
PART = "#lora_trainer_captions .lt-describe"


def answer_as_before(page: Page, seconds: float) -> None:
    """Asked how it stands, the server gives what it says now for so long, as a busy one does."""
    old = json.dumps(page.evaluate("loraTrainer.ask('/lora-trainer/status')"))
    end = time.monotonic() + seconds

    def answer(route: Any) -> None:
        route.fulfill(body=old) if time.monotonic() < end else route.continue_()

    page.route("**/lora-trainer/status", answer)


def test_captions_are_written_asked_for_and_taken_back(page: Page, dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "2_zwx"
    shutil.copytree(dataset / "2_zwx", folder)
    check(page, folder.parent)
    page.locator("#lora_trainer_subject input").fill("character")
    page.keyboard.press("Enter")
    page.set_viewport_size({"width": 400, "height": 900})
    pressed(page, "#lora_trainer_captions [data-describe=open]")
    page.select_option(f"{PART} [name=lt_captioner]", "wd14")
    page.wait_for_selector(f"{PART} .lt-about >> text=It needs a folder with model.onnx, selected_tags.csv")
    pressed(page, f"{PART} [data-describe=write]")
    page.wait_for_selector(f"{PART} .lt-problem >> text=needs the folder with its model")
    page.fill(f"{PART} [name=lt_model]", str(make_wd14(tmp_path / "wd14")))
    page.fill(f"{PART} [name=lt_deny]", "blue")
    assert page.is_checked(f"{PART} [name=lt_belongs]")
    assert "belong to the character" in page.inner_text(f"{PART} .lt-rule")
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    assert serious_findings(page, "#lora_trainer_captions") == []
    answer_as_before(page, 2)  # the captions are written by then
    pressed(page, f"{PART} [data-describe=write]")
    page.wait_for_selector(f"{PART} .lt-good >> text=4 captions written, 2 images left as they were.")
    assert (folder / "5.txt").read_text() == "zwx, 1girl" and "a ball" in (folder / "0.txt").read_text()
    page.set_viewport_size({"width": 1280, "height": 900})
    page.select_option(f"{PART} [name=lt_existing]", "replace")
    pressed(page, f"{PART} [data-describe=write]")
    page.wait_for_selector(f"{PART} .lt-question >> text=2 captions were written or edited by hand")
    page.keyboard.press("Enter")  # the way that changes nothing has the focus
    page.wait_for_selector(f"{PART} .lt-question", state="detached")
    pressed(page, "#lora_trainer_captions [data-caption=open]")
    page.wait_for_selector("#lora_trainer_captions .lt-undo >> text=Undo: automatic captions")
    pressed(page, "#lora_trainer_captions .lt-undo")
    page.wait_for_selector("#lora_trainer_captions .lt-said >> text=4 captions changed.")
    assert not (folder / "5.txt").exists()
