"""The tab stand-alone, served by a process of its own, and what a test does on it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from lora_trainer.training.folder import RunFolder
from tests.support.browser import Page, fill, go, reveal, value_of

ROOT = Path(__file__).resolve().parents[2]


class Served:
    """A page that is served by a process of its own."""

    def __init__(self, folder: Path, loras: str = "lora") -> None:
        self.folder = folder
        self.loras, self.output, self.log = folder / loras, folder / "output", folder / "log.txt"
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
    page.wait_for_selector("#lora_trainer_plan :is(.lt-plan, .lt-problem)", state="attached")


def check(page: Page, folder: Path | str) -> str:
    """Type a folder, press Check, wait for what it says."""
    fill(page, "dataset", str(folder))
    page.click("#lora_trainer_check")
    page.wait_for_selector("#lora_trainer_check_answer :is(.lt-check, .lt-problem)")
    return str(page.inner_text("#lora_trainer_check_answer"))


def set_options(page: Page, **values: Any) -> None:
    """Open Advanced and change options."""
    go(page, "train")
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
    heads = ", ".join(f".lt-head[data-state={one}]" for one in states)
    page.wait_for_selector(heads, state="attached", timeout=timeout)


def press(page: Page, button: str) -> None:
    reveal(page, f"#lora_trainer_{button}")
    page.click(f"#lora_trainer_{button}")


def queue_and_log(page: Page) -> None:
    """While a training is at work: its log is read, another one is put into the queue, and taken out again."""
    page.click("#lora_trainer_log summary")
    page.wait_for_selector("#lora_trainer_log tbody tr")
    fill(page, "name", "afterwards")
    press(page, "enqueue")
    page.wait_for_selector("#lora_trainer_message >> text=afterwards is in the queue; it begins by itself")
    press(page, "enqueue")
    page.click("#lora_trainer_message [data-choice='queue+change']")
    page.wait_for_selector("#lora_trainer_message >> text=afterwards is in the queue; it begins by itself")
    go(page, "runs")
    page.click("#lora_trainer_queue [data-queue=hold]")
    page.wait_for_selector("#lora_trainer_queue >> text=The queue is held.")
    assert page.locator("#lora_trainer_queue li").count() == 1
    page.click("#lora_trainer_queue [data-queue=remove]")
    page.wait_for_selector("#lora_trainer_queue li", state="detached")


def look_at_what_stopped(page: Page, served: Served) -> None:
    """A run that a crash ended is offered on every page, looked at, its settings taken over, and forgotten."""
    page.wait_for_selector("#lora_trainer_offer >> text=crashed stopped at step 3 of 50")
    page.click("#lora_trainer_offer [data-act=look]")
    page.wait_for_selector("#lora_trainer_runs .lt-look polyline.mean")
    page.click("#lora_trainer_runs .lt-look summary >> text=Log")
    assert page.locator("#lora_trainer_runs .lt-log tbody tr").count() == 3
    page.click("#lora_trainer_runs li:has-text('crashed stopped') [data-act=settings]")
    page.wait_for_selector("#lora_trainer_message >> text=These are the settings of the run crashed")
    assert value_of(page, "name") == "crashed" and value_of(page, "network_dim_option") == "6"
    page.click("#lora_trainer_offer [data-act=forget]")
    page.wait_for_selector("#lora_trainer_offer .lt-way", state="detached")
    assert RunFolder(served.output, "crashed").read_run()["forgotten"] is True


def stop_and_continue_the_test(page: Page, name: str) -> None:
    """The result is looked at while the test makes it, the test is stopped and continued."""
    go(page, "train")
    fill(page, "name", name)
    press(page, "test")
    state(page, "testing")
    go(page, "result")
    page.wait_for_selector("#lora_trainer_report .lt-growing .lt-picture img")
    assert f"{name}: the test so far" in page.inner_text("#lora_trainer_report")
    assert page.locator("#lora_trainer_report [data-act=continue_test]").count() == 0, "it is at work"
    go(page, "train")
    press(page, "stop")
    state(page, "stopped")
    go(page, "result")
    page.wait_for_selector("#lora_trainer_report .lt-half >> text=The test was stopped after")
    few = page.locator("#lora_trainer_report .lt-picture").count()
    page.click("#lora_trainer_report [data-act=continue_test]")
    state(page, "done")
    go(page, "result")
    page.wait_for_selector("#lora_trainer_report .lt-half", state="detached")
    page.wait_for_selector("#lora_trainer_report >> text=Open the full report")
    assert page.locator("#lora_trainer_report .lt-picture").count() > few > 0


def compare_and_use(page: Page, served: Served) -> None:
    """Two saves of the run side by side, blind; then the earlier one becomes the LoRA."""
    assert page.locator("#lora_trainer_loss .chart .line").count() == 2, "what was learned and what was kept"
    go(page, "runs")
    page.wait_for_selector("#lora_trainer_runs .lt-runs >> text=whole")
    page.check("#lora_trainer_compare [name=lt_blind]")
    page.click("#lora_trainer_compare [data-compare=begin]")
    page.wait_for_selector("#lora_trainer_compare .lt-pair img")
    assert page.locator("#lora_trainer_compare figcaption").all_inner_texts() == ["Image A", "Image B"]
    assert page.is_checked("#lora_trainer_compare [name=lt_blind]") and "Votes" not in page.inner_text(
        "#lora_trainer_compare"
    )
    page.locator("#lora_trainer_compare .lt-pair [data-compare]").first.click()
    page.wait_for_selector("#lora_trainer_compare >> text=Votes: ")
    (kept,) = map(json.loads, (served.output / "votes.jsonl").read_text().splitlines())
    assert kept["blind"] and kept["winner"] in ("one", "two")
    names = page.locator("#lora_trainer_compare figcaption").all_inner_texts()
    assert all(name.startswith("whole: ") for name in names) and len(set(names)) == 2
    go(page, "result")
    page.locator("#lora_trainer_report .lt-use >> text=Use whole-000001 as whole").last.click()
    page.wait_for_selector("#lora_trainer_report >> text=whole.safetensors is whole-000001.safetensors now")
    one, two = ((served.loras / f"{name}.safetensors").read_bytes() for name in ("whole", "whole-000001"))
    assert one == two and (served.loras / "whole-was.safetensors").is_file()
