"""What the extension costs at the start, what it changes in the environment, and who may use its routes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import needs_browser, opened
from tests.webui.server import ROOT, WebUI, kind_of

pytestmark = pytest.mark.slow
SHARE = 0.05  # of the whole start


@pytest.fixture(scope="module")
def guarded(webui_dir: Path, demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebUI]:
    """A WebUI with a password; A1111 in a memory mode that can't be trained in."""
    folder = tmp_path_factory.mktemp("guarded")
    lowvram = ["--lowvram"] if kind_of(webui_dir).tiny else []  # the forks move their parts themselves
    found = WebUI(webui_dir, folder, "--api-auth", "ann:secret,bob:word", *lowvram)
    found.auth = "bob:word"
    found.install([demo_checkpoint])
    with found:
        yield found


def test_start_up_cost(webui: WebUI) -> None:
    start = webui.get("/internal/profile-startup")
    ours = {name: seconds for name, seconds in start["records"].items() if "lora_trainer_tab" in name}
    assert len(ours) >= 2, "loading the script, adding the routes"
    assert sum(ours.values()) < SHARE * start["total"], (ours, start["total"])


def test_no_package_changes(webui: WebUI) -> None:
    before = webui.probe("packages")
    environment = {**os.environ, "PYTHONPATH": str(webui.root)}
    command = [webui.python, str(ROOT / "install.py")]
    done = subprocess.run(command, cwd=webui.root, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    after = [package for package in webui.probe("packages") if not package.startswith("bitsandbytes==")]
    assert after == [package for package in before if not package.startswith("bitsandbytes==")]


def test_the_settings_are_there(webui: WebUI) -> None:
    props = [component["props"] for component in webui.get("/config")["components"]]
    shown = {prop.get("elem_id"): prop.get("value") for prop in props}  # some forks' API leaves extensions' out
    assert shown["setting_lora_trainer_serve_generation"] is True and shown["setting_lora_trainer_output"] == ""


def test_the_tab_is_there(webui: WebUI) -> None:
    components = webui.get("/config")["components"]
    ids = {component["props"].get("elem_id") for component in components}
    assert {"tab_lora_trainer", "lora_trainer_start", "lora_trainer_dataset"} <= ids


def test_routes_want_the_api_password(guarded: WebUI) -> None:
    assert guarded.status()["state"] == "idle"
    for auth in (None, "bob:wrong", "eve:word"):
        before, guarded.auth = guarded.auth, auth
        try:
            for method, path in (("GET", "status"), ("POST", "stop"), ("POST", "train"), ("GET", "report/x")):
                code, answer = guarded.call(method, f"/lora-trainer/{path}", {} if method == "POST" else None)
                assert code == 401 and "password" in answer["error"]
        finally:
            guarded.auth = before


@needs_browser
def test_a_browser_is_never_asked_for_the_api_password(guarded: WebUI) -> None:
    """A refused request with WWW-Authenticate opens the browser's login dialog, and everything waits behind it."""
    routes = f"{guarded.url}/lora-trainer/"
    answers: list[tuple[int, str]] = []
    asked: set[object] = set()
    most = 0

    def begin(request: Any) -> None:
        nonlocal most
        if request.url.startswith(routes):
            asked.add(request)
            most = max(most, len(asked))

    def end(request: Any) -> None:
        asked.discard(request)

    def note(answer: Any) -> None:
        if answer.url.startswith(routes):
            answers.append((answer.status, answer.headers.get("www-authenticate", "")))

    with opened() as browser:
        page = browser.page("about:blank")
        for event, listener in (("request", begin), ("requestfinished", end), ("requestfailed", end)):
            page.on(event, listener)
        page.on("response", note)
        page.goto(guarded.url, wait_until="domcontentloaded")
        page.wait_for_selector("#txt2img_prompt textarea")
        page.locator("#tabs > .tab-nav > button", has_text="Train LoRA").click()
        page.wait_for_selector("#lora_trainer_progress .lt-filled", state="attached")
        before = len(answers)
        page.wait_for_timeout(6000)
        assert answers and all(answer == (200, "") for answer in answers), answers
        assert len(answers) - before <= 3 and most == 1, "one question at a time, every few seconds"
        page.locator("#tabs > .tab-nav > button", has_text="txt2img").first.click()
        for field, value in (("steps", "2"), ("width", "64"), ("height", "64")):
            page.locator(f"#txt2img_{field} input[type=number]").fill(value)
        page.click("#txt2img_generate")
        page.wait_for_selector("#txt2img_gallery img")


def test_lowvram_is_refused(guarded: WebUI, dataset: Path) -> None:
    status = guarded.train("low", dataset)
    if not guarded.kind.tiny:
        assert status["state"] == "done", "behind a password as without one"
        return
    assert status["state"] == "failed" and "--medvram" in status["error"]
    assert not list((guarded.data / "models" / "Lora").glob("low*"))
