"""Fixtures of these tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.ui.job import Job
from tests.support.office import SMALL, OfficeHost
from tests.support.tiny_host import make_dataset


@pytest.fixture
def host(tmp_path: Path) -> OfficeHost:
    return OfficeHost(tmp_path / "loras")


@pytest.fixture
def job(host: OfficeHost, tmp_path: Path) -> Iterator[Job]:
    found = Job(lambda: host, lambda: tmp_path / "out")
    yield found
    found.stop()
    found.wait(60)


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    return {"name": "zork", "dataset": str(make_dataset(tmp_path / "data")), "config": dict(SMALL)}
