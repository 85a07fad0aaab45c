"""What all tests share. Slow ones run with ``--slow``, or when they are chosen with ``-m slow``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.register_assert_rewrite("support.options")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models are tiny: more threads only wait for each other
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may need a hub
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``tiny_checkpoint("sd1" | "sd2" | "sd2v" | "sdxl")``: a random checkpoint file, written once per session."""
    from tests.support.tiny_checkpoints import write_checkpoint

    written: dict[str, Path] = {}

    def checkpoint(kind: str) -> Path:
        if kind not in written:
            written[kind] = write_checkpoint(kind, tmp_path_factory.mktemp(kind))
        return written[kind]

    return checkpoint


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests that take more than a few seconds")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow") or "slow" in config.getoption("-m"):
        return
    slow = pytest.mark.skip(reason="slow; run with --slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(slow)
