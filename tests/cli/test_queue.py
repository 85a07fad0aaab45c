"""``queue``: several trainings one after the other, also after the program was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.cli import main
from lora_trainer.runs.queue import Queue
from lora_trainer.runs.queued import Queued
from lora_trainer.training.folder import RunFolder
from tests.support.command_line import ROOT, SMALL, interrupt, on_step, one_line

ADD = ["queue", "add", "--checkpoint", "base.safetensors", "--dataset", "data", "--name"]


@pytest.fixture
def queued(place: Path) -> Path:
    (place / "base.safetensors").touch()
    return place


def add(name: str, *more: str, options: list[str] = SMALL) -> int:
    return main([*ADD, name, *more, "--set", *options])


def states() -> dict[str, str]:
    return {entry.name: entry.state for entry in Queue(Path("output")).read().entries}


def written() -> list[str]:
    files = [path for path in Path("output/lora").glob("*.safetensors") if "-" not in path.stem]
    return [path.stem for path in sorted(files, key=lambda path: path.stat().st_mtime_ns)]


def test_it_trains_in_its_order(queued: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert add("a") == 0 and "Added: 1. a: waiting" in capsys.readouterr().out
    assert add("b", "--test") == 0 and add("c") == 0
    assert main(["queue", "move", "3", "--to", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[-3:] == ["3. c: waiting", "1. a: waiting", "2. b: waiting"]
    assert main(["queue", "start"]) == 0
    assert "Queue: 3 done, 0 failed, 0 waiting." in capsys.readouterr().out
    assert written() == ["c", "a", "b"] and states() == {"a": "done", "b": "done", "c": "done"}
    assert Path("output/b/report.json").is_file() and not Path("output/a/report.json").exists()
    assert main(["queue", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["running"] is None and [row["state"] for row in content["entries"]] == ["done"] * 3


def test_a_failure_is_one_line_and_the_next_is_trained(queued: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (queued / "data").rename(queued / "gone")
    (queued / "data").mkdir()
    (queued / "gone/1_zork").rename(queued / "data/1_zork")
    assert add("a") == 0 and add("b") == 0 and add("c") == 0
    queue = Queue(Path("output"))
    rows = json.loads(queue.path.read_text())
    rows["entries"][0]["dataset"] = str(queued / "gone-now")
    rows["entries"][1]["config"]["rank"] = 1
    queue.path.write_text(json.dumps(rows))
    queue.add(Queued(0, "web", str(queued / "data"), {}, checkpoint="model.safetensors"))
    capsys.readouterr()
    assert main(["queue", "start"]) == 1
    told = capsys.readouterr()
    first, second = told.err.strip().splitlines()
    assert "gone-now" in first and "rank" in second
    assert states() == {"a": "failed", "b": "failed", "c": "done", "web": "waiting"}
    assert "Queue: 1 done, 2 failed, 1 waiting." in told.out and "queue edit 4 --checkpoint FILE" in told.out
    assert main(["queue", "edit", "1", "--dataset", "data"]) == 0
    assert main(["queue", "edit", "4", "--checkpoint", "base.safetensors", "--set", *SMALL]) == 0
    assert main(["queue", "remove", "2"]) == 0
    assert main(["queue", "start"]) == 0
    assert states() == {"a": "done", "c": "done", "web": "done"}


def test_ctrl_c_stops_the_run_and_holds_the_queue(
    queued: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert add("a") == 0 and add("b") == 0
    with monkeypatch.context() as patched:
        on_step(patched, 3, interrupt)
        assert main(["queue", "start"]) == 0
    assert states() == {"a": "stopped", "b": "waiting"} and Queue(Path("output")).read().held
    told = capsys.readouterr().out
    assert "Stopped at step 3 of 10" in told and "The queue is held" in told
    assert main(["queue"]) == 0 and "held; 'queue start' goes on" in capsys.readouterr().out
    assert main(["queue", "start"]) == 0 and states() == {"a": "stopped", "b": "done"}
    assert main(["queue", "edit", "1", "--resume"]) == 0 and main(["queue", "start"]) == 0
    assert states()["a"] == "done" and RunFolder(Path("output"), "a").last_step() == 10


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_it_survives_a_kill_and_the_file_is_the_same(queued: Path) -> None:
    options = [*SMALL, "save_every_n_steps=2", "max_train_epochs=4"]
    assert add("a", options=options) == 0 and add("b") == 0
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), *sys.path])
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tests/support/tiny_cli.py"), "queue", "start"],
        env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    folder, end = RunFolder(Path("output"), "a"), time.monotonic() + 60
    try:
        while (folder.last_step() or 0) < 5 and time.monotonic() < end:
            time.sleep(0.01)
        assert states() == {"a": "running", "b": "waiting"}
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert states() == {"a": "waiting", "b": "waiting"}
    assert "interrupted" in Queue(Path("output")).read().get(1).why
    begun = folder.read_run()["began"]
    assert main(["queue", "start"]) == 0
    assert states() == {"a": "done", "b": "done"} and written() == ["a", "b"]
    assert folder.read_run()["began"] >= begun
    steps = [json.loads(line)["step"] for line in folder.log.read_text().splitlines()]
    assert steps == list(range(1, 21)), "it went on, and began nothing anew"
    assert main([*ADD, "a", "--output", "whole", "--set", *options]) == 0
    assert main(["queue", "start", "--output", "whole"]) == 0
    assert Path("whole/lora/a.safetensors").read_bytes() == Path("output/lora/a.safetensors").read_bytes()


def test_a_signal_that_nobody_typed_leaves_the_entry_to_be_continued(
    queued: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert add("a") == 0
    on_step(monkeypatch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["queue", "start"]) == 128 + signal.SIGTERM
    entry = Queue(Path("output")).read().get(1)
    assert entry.state == "waiting" and entry.interrupted and not Queue(Path("output")).read().held
    capsys.readouterr()
    assert main(["runs"]) == 0
    assert "a stopped at step 3 of 10" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([*ADD[:2], "--name", "x"], "--checkpoint, --dataset must be given"),
        ([*ADD, "a:b"], "a:b"), ([*ADD, "x", "--set", "rank=3"], "rank"),
        (["queue", "add", "--checkpoint", "none.safetensors", "--dataset", "data", "--name", "x"], "none.safetensors"),
        (["queue", "add", "--checkpoint", "base.safetensors", "--dataset", "no", "--name", "x"], "doesn't exist"),
        ([*ADD, "x", "--resume"], "nothing to resume"),
        (["queue", "remove", "9"], "no entry 9"), (["queue", "move", "1"], "--to"),
        (["queue", "move", "1", "--to", "0"], "it can't be '0'"), (["queue", "dance"], "dance"),
        (["queue", "edit", "9"], "no entry 9"),
    ],
)  # fmt: skip
def test_wrong_input(queued: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert words in one_line(capsys.readouterr().err)
    assert Queue(Path("output")).read().entries == []


def test_a_queue_that_another_process_works_on(queued: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert add("a") == 0
    with Queue(Path("output")).at_work():
        assert main(["queue", "start"]) == 1
    assert "worked on by another process" in one_line(capsys.readouterr().err)


def test_a_class_that_was_typed_may_be_used(queued: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    (queued / "mine.py").write_text("from torch.optim import SGD as Mine")
    monkeypatch.syspath_prepend(str(queued))
    options = [*SMALL, "optimizer_type=mine.Mine"]
    assert add("a", options=options) == 0
    rows = json.loads(Path("output/queue.json").read_text())
    assert rows["entries"][0]["typed"] == ["mine.Mine"]
    rows["entries"][0]["typed"] = []
    Path("output/queue.json").write_text(json.dumps(rows))
    assert main(["queue", "start"]) == 1 and "mine.Mine" in capsys.readouterr().err
    assert main(["queue", "edit", "1", "--set", "optimizer_type=mine.Mine"]) == 0
    assert main(["queue", "start"]) == 0
