"""A long run keeps nothing that grows with its steps but one line of the log for each.

``STEPS=10000 pytest -m slow -s tests/training/test_long_runs.py`` is the long one; it takes a few minutes.
"""

from __future__ import annotations

import gc
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import torch

from lora_trainer.training.events import StepDone
from lora_trainer.training.run import train
from lora_trainer.training.state_file import read_state
from lora_trainer.ui.status import MOST_POINTS, Record
from tests.support.runs import request

STEPS = int(os.environ.get("STEPS", "600"))
LOOKS = 8
LINE = 600  # bytes of a line of the log, at most


class Look(NamedTuple):
    step: int
    resident: int  # MB
    tensors: int
    files: int
    threads: int
    state: int  # bytes
    record: int  # characters


def look(step: int, root: Path, record: Record) -> Look:
    gc.collect()
    process = psutil.Process()
    state = root / "out/zork/state/state.pt"
    return Look(
        step,
        process.memory_info().rss >> 20,
        sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects()),
        process.num_fds() if hasattr(process, "num_fds") else 0,
        process.num_threads(),
        state.stat().st_size if state.is_file() else 0,
        len(json.dumps(record.to_dict())),
    )


@pytest.mark.slow
def test_memory_files_and_states_stay_as_they_are(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "max_train_epochs": 0, "max_train_steps": STEPS, "save_every_n_steps": STEPS // 20, "save_last_n_steps": 1,
        "save_state_every_n_minutes": 0.02, "learning_rate": 1e-4, "sample_every_n_steps": STEPS // 10,
        "text_encoder_lr": 1e-4,
    }  # fmt: skip
    host, asked, token = request(tmp_path, **options)
    record, looks = Record(name="zork", output=tmp_path / "out"), []
    for event in train(host, asked, token):
        record.take(event)
        if isinstance(event, StepDone) and event.step % (STEPS // LOOKS) == 0:
            looks.append(look(event.step, tmp_path, record))
            print(looks[-1])  # noqa: T201
    first, last = looks[1], looks[-1]
    assert last.step == STEPS and last.resident <= first.resident * 1.02 + 8
    assert last.tensors <= first.tensors + 20 and last.files <= first.files + 2 and last.threads <= first.threads + 1
    assert last.state <= first.state + 4096  # names of saved files and the last epoch's losses
    assert len(record.losses) <= MOST_POINTS + 1 and len(record.notices) < 5
    position = json.loads(read_state(tmp_path / "out/zork/state/state.pt")["position"])
    assert len(position["losses"]) == 10 and len(position["saved"]) <= 3
    log = tmp_path / "out/zork/log.jsonl"
    assert len(log.read_text().splitlines()) == STEPS and log.stat().st_size < LINE * STEPS
    assert len(list((tmp_path / "loras").glob("*.safetensors"))) <= 4
    baselines = [line for line in log.read_text().splitlines() if json.loads(line)["baseline"] is not None]
    assert len(baselines) < 450  # the curve's two hundred, and those out of turn
