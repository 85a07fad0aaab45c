"""A WebUI that is killed in the middle of a training, and started again: the tab offers the run, and finishes it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.browser import needs_browser, opened
from tests.support.runs import tensors
from tests.support.tab_page import state
from tests.webui.server import WebUI, kind_of
from tests.webui.test_webui_page import of_ours, open_tab

pytestmark = [
    pytest.mark.slow,
    needs_browser,
]
OPTIONS = {"max_train_steps": 60, "save_every_n_steps": 10, "sample_every_n_epochs": 0, "sample_every_n_steps": 10,
           "sample_prompts": "zorb --w 64 --h 64 --s 2"}  # fmt: skip


def test_the_tab_offers_what_a_killed_webui_was_training(
    webui_dir: Path, demo_checkpoint: Path, dataset: Path, tmp_path: Path
) -> None:
    if not kind_of(webui_dir).tiny:
        pytest.skip("an hour with a processor alone")
    webui = WebUI(webui_dir, tmp_path / "killed")
    webui.install([demo_checkpoint])
    with webui:
        assert webui.train("whole", dataset, config=OPTIONS)["state"] == "done"
        webui.train("crashed", dataset, wait=False, config=OPTIONS)
        webui.reached(15)
        webui.wait_for(lambda: [*webui.data.rglob("crashed/state/state.pt")], "a state")
        webui.kill()
        webui.start()
        with opened() as browser:
            page = browser.page(webui.url)
            open_tab(page)
            page.wait_for_selector("#lora_trainer_offer >> text=crashed stopped at step")
            page.click("#lora_trainer_offer [data-act=look]")
            page.wait_for_selector("#lora_trainer_runs .lt-look polyline.mean", state="attached")
            assert page.locator("#lora_trainer_runs .lt-look .lt-sheet img").count() >= 1
            page.click("#lora_trainer_offer [data-act=continue]")
            page.wait_for_selector("#lora_trainer_offer .lt-way", state="detached")
            state(page, "done", "failed")
            assert webui.status()["state"] == "done", webui.status()["message"]
            assert len(webui.status()["losses"]) == 60, "the curve has its first part, too"
            assert of_ours(page) == []
        loras = webui.data / "models" / "Lora"
        for name in ("", "-step00000010", "-step00000050"):
            whole, crashed = (tensors(loras / f"{run}{name}.safetensors") for run in ("whole", "crashed"))
            assert all(torch.equal(whole[key], crashed[key]) for key in whole | crashed), name
