"""Fixtures of these tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from lora_trainer.ui.desk import Desk
from tests.support.tab import FakeJob


@pytest.fixture
def job(tmp_path: Path) -> FakeJob:
    return FakeJob(tmp_path / "output")


@pytest.fixture
def desk(job: FakeJob) -> Desk:
    return Desk(job)  # type: ignore[arg-type]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Loose photos: two with the same stem, one with a caption, and a note that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate(("a.png", "a.jpg", "b.png")):
        Image.new("RGB", (80, 64), (80 * number, 10, 200)).save(folder / name)
    (folder / "b.txt").write_text("a cat on a mat")
    (folder / "notes.md").write_text("no caption")
    return folder


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "set" / "5_zwx cat"
    folder.mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (64, 64), (80 * number, 10, 200)).save(folder / f"{number}.png")
    (folder / "0.txt").write_text("zwx cat, on a mat")
    (folder / "1.txt").write_text("a dog")
    (folder / "broken.png").write_bytes(b"this is no picture")
    return folder.parent
