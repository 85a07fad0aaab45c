"""Several processes: two with one image each compute what one with two images does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support import train_tiny
from support.tiny_host import make_dataset

TESTS = Path(__file__).parents[1]


@pytest.mark.slow
def test_two_processes_equal_one_with_twice_the_batch(tmp_path: Path) -> None:
    # seven pictures in two buckets, so that some batches are uneven and one process gets nothing
    make_dataset(tmp_path / "data", sizes=((64, 64),) * 3 + ((128, 64),) * 4, repeats=1)
    train_tiny.main(tmp_path / "one", 2)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",  # accelerate's launcher
        train_tiny.__file__, str(tmp_path / "two"), "1",  # starts this for GPUs; on a CPU it would want MPI
    ]  # fmt: skip
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (load_file(tmp_path / place / "loras/zork.safetensors") for place in ("one", "two"))
    assert one.keys() == two.keys()
    for key in one:
        torch.testing.assert_close(one[key], two[key], atol=1e-5, rtol=1e-3)
    assert json.loads((tmp_path / "two/out/zork/run.json").read_text())["processes"] == 2
    logs = [[json.loads(line) for line in (tmp_path / place / "out/zork/log.jsonl").read_text().splitlines()]
            for place in ("one", "two")]  # fmt: skip
    assert [line["step"] for line in logs[0]] == [line["step"] for line in logs[1]]
    for first, second in zip(*logs, strict=True):
        assert abs(first["loss"] - second["loss"]) < 1e-4
