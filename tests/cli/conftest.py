"""Fixtures of these tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.tiny_host import TinyHost, make_dataset


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a dataset, where every checkpoint is a tiny random model."""
    make_dataset(tmp_path / "data", repeats=1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "lora_trainer.hosts.standalone.host.DiffusersHost", lambda checkpoint, lora_dir, **options: TinyHost(lora_dir)
    )
    return tmp_path
