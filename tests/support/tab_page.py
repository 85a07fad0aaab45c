"""The tab stand-alone, served by a process of its own, and what a test does on it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.support.browser import Page, fill

ROOT = Path(__file__).resolve().parents[2]


class Served:
    """A page that is served by a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loras, self.output, self.log = folder / "lora", folder / "output", folder / "log.txt"
        command = [
            sys.executable,
            "-m",
            "lora_trainer",
            "ui",
            "--lora-dir",
            str(self.loras),
            "--output",
            str(self.output),
        ]
        with self.log.open("wb") as log:
            environment = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=folder)
        self.url = self._address()

    def _address(self) -> str:
        end = time.monotonic() + 300
        while time.monotonic() < end:
            found = re.search(r"http://127\.0\.0\.1:\d+/", self.log.read_text("utf-8", "replace"))
            if found:
                return found.group()
            assert self.process.poll() is None, self.log.read_text("utf-8", "replace")[-3000:]
            time.sleep(0.1)
        raise AssertionError("the page isn't served: " + self.log.read_text("utf-8", "replace")[-3000:])

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(15)


def planned(page: Page) -> None:
    page.wait_for_selector("#lora_trainer_plan .lt-plan")


def check(page: Page, folder: Path | str) -> str:
    """Type a folder, press Check, wait for what it says."""
    fill(page, "dataset", str(folder))
    page.click("#lora_trainer_check")
    page.wait_for_selector("#lora_trainer_check_answer :is(.lt-check, .lt-problem)")
    return str(page.inner_text("#lora_trainer_check_answer"))


def set_options(page: Page, **values: Any) -> None:
    """Open Advanced and change options."""
    opening = "#lora_trainer_advanced > :is(.label-wrap, button)"
    if not page.is_visible("#lora_trainer_reset"):
        page.click(opening)
    for name, value in values.items():
        where = f"#lora_trainer_{name}_option"
        if not page.is_visible(where):
            group = page.evaluate(f"document.querySelector('{where}').closest('[id^=lora_trainer_group_]').id")
            page.click(f"#{group} > :is(.label-wrap, button)")
        fill(page, f"{name}_option", str(value))


def state(page: Page, *states: str, timeout: float = 300_000) -> None:
    """Wait for one of these states."""
    page.wait_for_selector(", ".join(f".lt-head[data-state={one}]" for one in states), timeout=timeout)


def press(page: Page, button: str) -> None:
    page.click(f"#lora_trainer_{button}")
