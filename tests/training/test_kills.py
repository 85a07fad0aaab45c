"""A run that is killed at random moments, within the writing of its files, too, and resumed each time: the same bytes.

``KILLS=100 pytest -m slow tests/training/test_kills.py`` tries a hundred; it needs a second or two for each.
"""

from __future__ import annotations

import os
import random
import signal
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from tests.support.runs import run

KILLS = int(os.environ.get("KILLS", "8"))
OPTIONS: dict[str, Any] = {
    "max_train_epochs": 10, "save_every_n_epochs": 1, "save_state_every_n_minutes": 1e-9, "lr_scheduler": "cosine",
    "network_dim": 16, "sample_every_n_epochs": 2, "text_encoder_lr": 1e-3, "network_dropout": 0.1,
}  # fmt: skip


def attempt(root: Path, began: Any) -> None:
    """In a process of its own: begin or continue."""
    began.set()
    run(root, resume=(root / "out/zork/state").is_dir() and any((root / "out/zork/state").glob("*.pt")),
        overwrite=not any((root / "out/zork/state").glob("*.pt")), **OPTIONS)  # fmt: skip


def files(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((root / "loras").glob("*.safetensors"))}


def writing(root: Path) -> bool:
    """Whether a file is half written just now."""
    return any(root.glob("**/.*.tmp"))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL") or not hasattr(os, "fork"), reason="needs a forkserver and SIGKILL")
def test_killed_at_random_moments_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    # A fork of this process would hang: torch's threads run in it, and a copy holds their locks for ever.
    context, rng = get_context("forkserver"), random.Random(1)
    context.set_forkserver_preload(["tests.support.runs"])
    began = context.Event()  # which has to outlive the process's start
    undisturbed = context.Process(target=attempt, args=(tmp_path / "whole", began))
    undisturbed.start()
    undisturbed.join()
    whole = files(tmp_path / "whole")
    assert len(whole) == 10
    rounds = within = kills = 0
    while kills < KILLS:
        root, rounds = tmp_path / f"round{rounds}", rounds + 1
        done, most = False, kills + rng.randint(1, 4)
        while not done:
            began = context.Event()
            process = context.Process(target=attempt, args=(root, began))
            process.start()
            began.wait()
            aim, end = kills % 2 == 0, time.monotonic() + rng.uniform(0.05, 1.5)
            while process.is_alive() and kills < most and time.monotonic() < end:
                time.sleep(0.0005)
            while process.is_alive() and kills < most and aim and not writing(root):  # every other one within a file
                time.sleep(0.0002)
            if process.is_alive() and kills < min(most, KILLS):
                process.kill()
                kills += 1
                process.join()
                within += writing(root)
                continue
            process.join()
            done = process.exitcode == 0
            assert done, f"exit {process.exitcode} in round {rounds} after {kills} kills"
        assert files(root) == whole, f"round {rounds} after {kills} kills"
        assert not writing(root)
    print(f"{kills} kills, {within} of them within a file, in {rounds} runs")  # noqa: T201
    assert within >= KILLS / 4
