"""The list of runs: how a run's end is told, and folders in every state."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.errors import FileError
from lora_trainer.runs.details import details
from lora_trainer.runs.listing import RunList, list_runs
from lora_trainer.runs.moments import moment
from lora_trainer.training.events import Preparing, StepDone
from lora_trainer.training.folder import RunFolder
from lora_trainer.training.lock import held
from lora_trainer.training.run import train
from tests.support.runs import request, run

ROOT = Path(__file__).resolve().parents[2]


def only(root: Path) -> Any:
    (entry,) = list_runs(root / "out", root / "loras")
    return entry


def write(output: Path, name: str, log: int = 0, state: bool = False, **facts: Any) -> RunFolder:
    """A run's folder as it may be found."""
    folder = RunFolder(output, name)
    folder.path.mkdir(parents=True)
    if facts:
        folder.write_run({"name": name, "dataset": "/data", "config": {"seed": 1}, "steps": 150, "end": None, **facts})
    if log:
        folder.log.write_text("".join(json.dumps({"step": n, "loss": 0.1}) + "\n" for n in range(1, log + 1)))
    if state:
        folder.state.parent.mkdir()
        folder.state.write_bytes(b"state")
    return folder


def test_a_finished_run(tmp_path: Path) -> None:
    run(tmp_path, sample_every_n_steps=10)
    entry = only(tmp_path)
    assert (entry.state, entry.step, entry.steps, entry.why) == ("done", 20, 20, "")
    assert entry.lora == tmp_path / "loras/zork.safetensors" and entry.preview.name == "step000020_00.png"
    assert (entry.dataset, entry.trigger, entry.checkpoint) == (str(tmp_path / "data"), "zork", "tiny.safetensors")
    assert entry.line.startswith("zork finished all 20 steps, today ") and not entry.resumable
    assert entry.actions == ("test", "settings", "use", "delete") and not entry.warnings


def test_what_a_killed_run_has_saved_is_told_without_its_last_file(tmp_path: Path) -> None:
    run(tmp_path, stop_at=12, save_every_n_steps=5)
    (tmp_path / "loras/zork.safetensors").unlink()
    (tmp_path / "loras/zork-000003.safetensors").write_bytes(b"somebody else's")
    found = details(tmp_path / "out", only(tmp_path))
    assert [path.name for path in found.saves] == ["zork-step00000005.safetensors", "zork-step00000010.safetensors"]
    assert found.prompts == ["zork, picture 0, big, red"] and len(found.losses) == 12


def test_a_stopped_run_can_be_continued_and_is_then_finished(tmp_path: Path) -> None:
    run(tmp_path, stop_at=5)
    entry = only(tmp_path)
    assert entry.state == "stopped" and 5 <= entry.step < 20 and entry.resumable and not entry.offered
    assert entry.line.startswith(f"zork was stopped at step {entry.step} of 20, today ")
    run(tmp_path, resume=True)
    assert only(tmp_path).state == "done"


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        run(tmp_path, fails_at=3, error=RuntimeError("the cable\nwas pulled"))
    entry = only(tmp_path)
    assert (entry.state, entry.step, entry.why) == ("failed", 2, "RuntimeError: the cable")
    assert "failed at step 2 of 20" in entry.line and entry.line.endswith(": RuntimeError: the cable")
    assert entry.resumable, "what was trained until then was saved"


def test_a_run_that_is_in_progress_and_one_whose_reader_goes_away(tmp_path: Path) -> None:
    events = train(*request(tmp_path))
    for event in events:
        entry = only(tmp_path)
        assert entry.state == "running"
        if isinstance(event, StepDone) and event.step == 3:
            break
    assert entry.line == "zork is being trained: step 3 of 20" and "delete" not in entry.actions
    events.close()
    entry = only(tmp_path)
    assert entry.state == "interrupted" and entry.offered and entry.resumable


def test_a_run_that_is_stopped_while_it_prepares(tmp_path: Path) -> None:
    host, asked, token = request(tmp_path)
    events = train(host, asked, token)
    for event in events:
        if isinstance(event, Preparing):
            token.cancel()
            break
    events.close()
    entry = only(tmp_path)
    assert entry.state == "stopped" and not entry.resumable and "before its first step" in entry.line


def test_replacing_that_never_begins_leaves_the_other_runs_end(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(RuntimeError):
        run(tmp_path, overwrite=True, fails_at=1, error=RuntimeError("no"))
    assert only(tmp_path).state == "done"


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_killed_run_is_interrupted(tmp_path: Path) -> None:
    request(tmp_path)  # makes the dataset
    command = [
        sys.executable, str(ROOT / "tests/support/tiny_cli.py"), "train", "--checkpoint", "base.safetensors",
        "--dataset", "data", "--name", "zork", "--output", "out", "--lora-dir", "loras", "--set", "resolution=64",
        "network_dim=2", "max_train_steps=150", "save_every_n_steps=2", "seed=7",
    ]  # fmt: skip
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), *sys.path])
    process = subprocess.Popen(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.DEVNULL)
    folder, end = RunFolder(tmp_path / "out", "zork"), time.monotonic() + 60
    try:
        while not folder.has_state and time.monotonic() < end:
            time.sleep(0.01)
        assert only(tmp_path).state == "running"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    entry = only(tmp_path)
    assert entry.state == "interrupted" and entry.offered and 2 <= entry.step < 150
    assert entry.line.startswith(f"zork stopped at step {entry.step} of 150, today ")
    assert folder.lock.exists(), "listing leaves the killed run's lock where it is"


def test_ends_that_nobody_wrote_down(tmp_path: Path) -> None:
    write(tmp_path, "killed", log=62, state=True, steps=150)
    write(tmp_path, "prepared", steps=150)
    write(tmp_path, "full-disk", log=150, state=True, steps=150)
    write(tmp_path, "unsaved", log=150, state=True, steps=150)
    for name, log in (("old-stopped", 62), ("old-done", 150)):
        folder = write(tmp_path, name, log=log, state=True, steps=150)
        facts = folder.read_run()
        folder.write_run({key: value for key, value in facts.items() if key != "end"})
    loras = tmp_path / "loras"
    (loras / "below").mkdir(parents=True)
    (loras / "below/full-disk.safetensors").touch()
    found = {entry.name: entry for entry in list_runs(tmp_path, loras)}
    assert {name: entry.state for name, entry in found.items()} == {
        "killed": "interrupted", "prepared": "interrupted", "full-disk": "done", "unsaved": "interrupted",
        "old-stopped": "stopped", "old-done": "done",
    }  # fmt: skip
    assert {name for name, entry in found.items() if entry.offered} == {"killed", "unsaved"}
    assert found["full-disk"].lora == loras / "below/full-disk.safetensors"


def test_the_newest_is_first_and_those_at_work_before_them(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "older", "oldest")):
        folder = write(tmp_path, name, log=3, steps=10)
        for path in (folder.run, folder.log):
            os.utime(path, (2e9 - age, 2e9 - age))
    assert [entry.name for entry in list_runs(tmp_path, tmp_path)] == ["new", "older", "oldest"]
    with held(RunFolder(tmp_path, "oldest").lock):
        assert [entry.name for entry in list_runs(tmp_path, tmp_path)] == ["oldest", "new", "older"]


def test_folders_in_every_state(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "no-settings", log=5, state=True)
    damaged = write(out, "damaged", log=5, state=True, steps=10)
    damaged.run.write_bytes(b'{"name": "damaged", "st')
    odd = write(out, "odd", log=5, state=True, steps="many")
    odd.write_run({"steps": [], "end": ["done"], "config": 7, "dataset": 5, "base_model": "x", "forgotten": "yes"})
    odd.log.write_bytes(b'{"step": 4}\n{"step": "nan"}\n\xff\xfe{"step\n' + b"x" * 20000)
    (odd.path / "report.json").write_text('{"verdict": [], "images": [1, {"kind": "strength", "path": "../../x"}]}')
    tested = write(out, "tested")
    (tested.path / "images").mkdir()
    (tested.path / "images/b.png").touch()
    (tested.path / "report.html").touch()
    images = [{"kind": "strength", "strength": at, "path": f"images/{name}.png"} for at, name in ((1, "a"), (0.7, "b"))]
    report = {"verdict": "good", "recommended": {"strength": 0.8}, "images": images, "base_model": "m.safetensors"}
    (tested.path / "report.json").write_text(json.dumps(report))
    (out / "run-json-is-a-folder/run.json").mkdir(parents=True)
    for name in ("empty", "cache", "datasets", ".hidden", "photos"):
        (out / name).mkdir()
    (out / "photos/1.png").touch()
    for name in ("queue.json", "zork"):
        (out / name).write_text("a file")
    write(tmp_path / "elsewhere", "linked", log=5, steps=10)
    (out / "linked").symlink_to(tmp_path / "elsewhere/linked")
    found = {entry.name: entry for entry in list_runs(out, tmp_path / "nowhere")}
    assert set(found) == {"no-settings", "damaged", "odd", "tested", "run-json-is-a-folder"}
    assert "run.json is missing" in found["no-settings"].warnings[0] and found["no-settings"].step == 5
    assert "run.json isn't valid JSON" in found["damaged"].warnings[0]
    assert not any(entry.resumable or entry.offered for entry in found.values())
    entry = found["odd"]
    assert (entry.step, entry.steps, entry.verdict, entry.preview, entry.dataset) == (0, 0, "", None, "")
    entry = found["tested"]
    assert (entry.state, entry.verdict, entry.checkpoint) == ("done", "good", "m.safetensors")
    assert entry.preview == out / "tested/images/b.png" and entry.actions == ("report", "delete")
    assert entry.line.startswith("tested was tested, today ")
    for entry in found.values():
        assert json.loads(json.dumps(entry.to_dict()))["line"] == entry.line
    assert list_runs(tmp_path / "nowhere", tmp_path) == []


def test_nothing_is_read_twice_that_has_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lora_trainer.runs.listing as listing

    runs = RunList(tmp_path, tmp_path)
    folders = [write(tmp_path, f"run{n}", log=3, steps=10) for n in range(20)]
    read: list[str] = []
    original = listing.read
    monkeypatch.setattr(listing, "read", lambda folder, there: (read.append(folder.name), original(folder, there))[1])
    assert len(runs.entries()) == 20 and len(read) == 20
    read.clear()
    assert len(runs.entries()) == 20 and read == []
    with folders[7].log.open("a") as file:
        file.write('{"step": 4, "loss": 1}\n')
    assert next(entry.step for entry in runs.entries() if entry.name == "run7") == 4 and read == ["run7"]


def test_only_the_end_of_a_log_is_read(tmp_path: Path) -> None:
    folder = write(tmp_path, "long", steps=10**6)
    with folder.log.open("wb") as file:
        file.truncate(2**40)  # takes no room
        file.seek(0, os.SEEK_END)
        file.write(b'\n{"step": 999, "loss": 0.1}\n')
    assert list_runs(tmp_path, tmp_path)[0].step == 999


def test_a_run_by_its_name(tmp_path: Path) -> None:
    write(tmp_path / "out", "zork", log=3, steps=10)
    runs = RunList(tmp_path / "out", tmp_path)
    assert runs.entry("zork").step == 3
    for name in ("zorb", "", ".", "..", "../out/zork", "zork/", "a\0b"):
        with pytest.raises(FileError, match="There is no run named"):
            runs.entry(name)


def test_moments() -> None:
    now = datetime(2026, 3, 2, 9, 0)
    for then, text in (
        (datetime(2026, 3, 2, 0, 5), "today 00:05"), (datetime(2026, 3, 1, 23, 10), "yesterday 23:10"),
        (datetime(2026, 2, 26, 7, 0), "Thursday 07:00"), (datetime(2026, 2, 23, 7, 0), "23 February 07:00"),
        (datetime(2025, 12, 31, 7, 0), "31 December 2025"), (datetime(2026, 3, 3, 7, 0), "3 March 07:00"),
    ):  # fmt: skip
        assert moment(then.timestamp(), now) == text
    assert moment(1e300) == "at an unknown time"
