"""A real Chromium for tests of pages, driven by playwright."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

Page = Any  # playwright's; it needn't be installed to read this module
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
PATIENCE = float(os.environ.get("BROWSER_PATIENCE", "180")) * 1000  # ms; a busy machine is slow
LOCAL = ("http://127.0.0.1", "data:", "blob:")


def chromium() -> str | None:
    """The browser's path; None if it or playwright is missing."""
    if importlib.util.find_spec("playwright") is None:
        return None
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("CHROMIUM") or next((path for name in names if (path := shutil.which(name))), None)


needs_browser = pytest.mark.skipif(
    chromium() is None and not os.environ.get("REQUIRE_BROWSER"), reason="needs Chromium and playwright"
)


class Browser:
    """A running browser."""

    def __init__(self, browser: Any) -> None:
        self._browser = browser

    def page(self, url: str, width: int = 1600, height: int = 1000) -> Page:
        """A page in a session of its own; ``page.errors`` lists what its scripts threw. Nothing but this machine
        is reached."""
        context = self._browser.new_context(viewport={"width": width, "height": height})
        context.set_default_timeout(PATIENCE)
        context.route("**/*", lambda route: route.continue_() if _local(route) else route.abort())
        page = context.new_page()
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(error.stack or str(error)))
        page.goto(url, wait_until="domcontentloaded")
        return page


def _local(route: Any) -> bool:
    return str(route.request.url).startswith(LOCAL)


@contextmanager
def opened() -> Iterator[Browser]:
    """A browser for as long as the block lasts."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), headless=True, args=ARGUMENTS)
        try:
            yield Browser(browser)
        finally:
            browser.close()


def field(name: str) -> str:
    """The selector of an input of the tab."""
    return f"#lora_trainer_{name} :is(input:not([type=file]), textarea)"


def reveal(page: Page, selector: str) -> None:
    """Show the page of the tab that has this element."""
    found = page.evaluate(
        "what => (document.querySelector(what).closest('.tabitem[id^=lora_trainer]') || {}).id", selector
    )
    if found:
        go(page, found.removeprefix("lora_trainer_page_"))


def go(page: Page, name: str) -> None:
    """Show one of the tab's pages."""
    if not page.is_visible(f"#lora_trainer_page_{name}"):
        page.click(f"#lora_trainer_pages > .tab-nav > button >> text={name.capitalize()}")
        page.wait_for_selector(f"#lora_trainer_page_{name}")


def fill(page: Page, name: str, text: str) -> None:
    """Type into an input of the tab."""
    reveal(page, f"#lora_trainer_{name}")
    page.locator(field(name)).first.fill(text)


def pressed(page: Page, where: str) -> None:
    """Press a button, or open a fold, by keyboard."""
    page.focus(where)
    page.keyboard.press("Enter")


def value_of(page: Page, name: str) -> str:
    """What an input of the tab holds."""
    return str(page.locator(field(name)).first.input_value())


def filled(page: Page, **values: str) -> None:
    """Wait until these inputs hold these values; the page fills them only after it is there."""
    for name, value in values.items():
        page.wait_for_function(
            "([where, value]) => document.querySelector(where)?.value === value", arg=[field(name), value]
        )


def serious_findings(page: Page, within: str) -> list[str]:
    """What axe-core finds serious or critical within an element, one line each."""
    spec = importlib.util.find_spec("axe_playwright_python")
    assert spec and spec.origin, "the tests' set-up installs axe-playwright-python, which brings axe-core"
    page.evaluate((Path(spec.origin).parent / "axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("within => axe.run(within, {resultTypes: ['violations']})", within)
    assert found["passes"], "axe looked at something"
    return [
        f"{rule['impact']} {rule['id']}: {node['html'][:200]} {node['failureSummary']}"
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"][:5]
    ]
