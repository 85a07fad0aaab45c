"""Small datasets on disk for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from lora_trainer.config import RunConfig
from lora_trainer.dataset.folders import scan
from lora_trainer.dataset.items import Dataset

Save = Callable[..., Path]
Scan = Callable[..., Dataset]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The dataset folder."""
    path = tmp_path / "dataset"
    path.mkdir()
    return path


@pytest.fixture
def save(root: Path) -> Save:
    """Write an image ``folder/name`` below the dataset folder, with a caption file if ``caption`` is given."""

    def write(
        name: str, size: tuple[int, int] = (64, 64), caption: str | None = None, color: object = (9, 99, 199)
    ) -> Path:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, color).save(path)  # type: ignore[arg-type]
        if caption is not None:
            path.with_suffix(".txt").write_text(caption, encoding="utf-8")
        return path

    return write


@pytest.fixture
def read(root: Path) -> Scan:
    """Scan the dataset folder with some options changed."""

    def run(**options: object) -> Dataset:
        config = RunConfig().replace(**options)
        return scan(root, config.dataset, config.caption)

    return run
