"""What the tests of the page share: a job with a tiny model, one served page, one browser, some pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from lora_trainer.ui.job import Job
from tests.support.browser import Browser, Page, opened
from tests.support.office import SMALL, OfficeHost
from tests.support.tab_page import Served, planned
from tests.support.tiny_host import make_dataset


@pytest.fixture
def host(tmp_path: Path) -> OfficeHost:
    return OfficeHost(tmp_path / "loras")


@pytest.fixture
def job(host: OfficeHost, tmp_path: Path) -> Iterator[Job]:
    found = Job(lambda: host, lambda: tmp_path / "out")
    yield found
    found.close()


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    return {"name": "zork", "dataset": str(make_dataset(tmp_path / "data")), "config": dict(SMALL)}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    found = Served(tmp_path_factory.mktemp("ui"))
    try:
        yield found
    finally:
        found.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with opened() as found:
        yield found


@pytest.fixture
def page(served: Served, browser: Browser) -> Iterator[Page]:
    """The page as it looks at first: nothing of an earlier test in its inputs."""
    settings = served.output / "last-settings.json"
    settings.unlink(missing_ok=True)
    found = browser.page(served.url)
    planned(found)
    while settings.is_file():  # what the page of the test before had still to tell
        settings.unlink()
        found.reload()
        planned(found)
    yield found
    assert found.errors == [], "errors in the page's scripts"
    found.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six loose pictures of 64 px, two of them with captions."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(6):
        image = Image.new("RGB", (64, 64), (40 * number, 90, 220 - 30 * number))
        ImageDraw.Draw(image).ellipse((10, 10, 30 + 5 * number, 50), fill=(255, 40 * number, 0))
        image.save(folder / f"{number}.png")
    for number in range(2):
        (folder / f"{number}.txt").write_text(f"zwx, a ball, number {number}")
    return folder


@pytest.fixture(scope="module")
def dataset(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set") / "2_zwx"
    folder.mkdir()
    for path in pictures.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder.parent
