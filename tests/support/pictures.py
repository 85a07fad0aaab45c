"""The pictures of docs/images, made by using the tab: ``python -m tests.support.pictures docs/images``.

It trains the embedded checkpoint on its own dataset, on the page and in a real Chromium; a few minutes on one core.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from lora_trainer.demo.dataset import write_dataset
from tests.support.browser import Page, fill, filled, go, opened
from tests.support.tab_page import Served, check, planned, press, state

WIDTH, HEIGHT = 1280, 1180
PART = 0.4  # of the steps that are done in the picture of a training


def make(target: Path, page: Page) -> None:
    """From the folder to the result, with a picture of each page."""
    planned(page)
    check(page, "training_data/zorbo")
    filled(page, trigger="zorbo", name="zorbo")
    page.wait_for_timeout(1500)  # what the check suggests is told, too
    page.screenshot(path=target / "tab.png")
    press(page, "start")
    state(page, "training")
    page.wait_for_function(f"loraTrainer.status.step >= {PART} * loraTrainer.status.steps")
    page.mouse.move(0, 0)
    page.evaluate("window.scrollTo(0, 0)")
    page.screenshot(path=target / "training.png")
    dark(page, True)
    page.screenshot(path=target / "training-dark.png")
    dark(page, False)
    fill(page, "name", "ink")
    press(page, "enqueue")
    page.wait_for_selector("#lora_trainer_message >> text=is in the queue")
    go(page, "runs")
    page.click("#lora_trainer_queue [data-queue=hold]")
    state(page, "testing")
    state(page, "done", timeout=900_000)
    go(page, "result")
    page.wait_for_selector("#lora_trainer_report >> text=Open the full report")
    page.wait_for_timeout(1500)
    box = page.locator("#lora_trainer_report .lt-result").bounding_box()
    page.screenshot(path=target / "result.png", clip={**box, "height": min(box["height"], HEIGHT)}, full_page=True)
    go(page, "runs")
    page.wait_for_selector("#lora_trainer_runs .lt-chip")
    page.screenshot(path=target / "runs.png", clip={"x": 0, "y": 0, "width": WIDTH, "height": 520})


def dark(page: Page, on: bool) -> None:
    page.evaluate(f"document.body.classList.toggle('dark', {str(on).lower()})")
    page.wait_for_timeout(300)


def main(target: Path) -> None:
    """In a folder of its own, so that no picture shows a path of this machine."""
    target = target.resolve()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_dataset(Path("training_data/zorbo"))
        served = Served(Path(), loras="models/Lora")
        try:
            with opened() as browser:
                page = browser.page(served.url, WIDTH, HEIGHT)
                make(target, page)
        finally:
            served.stop()
            os.chdir(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
