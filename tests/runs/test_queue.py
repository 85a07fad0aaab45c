"""The queue's file: order, restarts, several processes, damage."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.errors import ConfigError, FileError, HostBusyError
from lora_trainer.runs import queue as module
from lora_trainer.runs.queue import KEPT, MOST, Queue
from lora_trainer.runs.queued import INTERRUPTED, Queued, begun
from lora_trainer.training.folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]


def entry(name: str, **values: Any) -> Queued:
    return Queued(0, name, "/data", {"version": 1}, **values)


def filled(output: Path, *names: str) -> Queue:
    queue = Queue(output)
    for name in names:
        queue.add(entry(name))
    return queue


def order(queue: Queue, state: str = "waiting") -> list[str]:
    return [one.name for one in queue.read().entries if one.state == state]


def test_entries_come_in_their_order(tmp_path: Path) -> None:
    queue = filled(tmp_path, "a", "b", "c", "d")
    queue.move(4, to=1)
    assert order(queue) == ["d", "a", "b", "c"]
    queue.move(1, to=99)
    assert order(queue) == ["d", "b", "c", "a"]
    assert queue.remove(3).name == "c"
    with queue.at_work():
        taken = [queue.take(), queue.take(), queue.take(), queue.take()]
        assert [one.name if one else None for one in taken] == ["d", "b", "a", None]
        assert all(one is None or one.taken for one in taken)
    assert [one.id for one in queue.read().entries] == [4, 2, 1]


def test_a_held_queue_gives_none(tmp_path: Path) -> None:
    queue = filled(tmp_path, "a")
    assert queue.hold().held and queue.take() is None and queue.read().held
    queue.hold(False)
    assert queue.take() is not None


def test_what_became_of_an_entry(tmp_path: Path) -> None:
    queue = filled(tmp_path, "a", "b", "c")
    with queue.at_work():
        for number, state in ((1, "done"), (2, "failed")):
            assert queue.take() is not None
            queue.ended(number, state, "why" if state == "failed" else "")  # type: ignore[arg-type]
        found = {one.name: (one.state, one.why) for one in queue.read().entries}
        assert found == {"a": ("done", ""), "b": ("failed", "why"), "c": ("waiting", "")}
        assert queue.take() is not None
        queue.ended(3, "waiting")
    assert order(queue) == ["c"]
    queue.edit(replace(queue.read().get(2), dataset="/other"))
    assert order(queue) == ["c", "b"] and queue.read().get(2).why == ""


def test_an_entry_that_does_not_suit_waits_and_the_rest_goes_on(tmp_path: Path) -> None:
    queue = filled(tmp_path, "a", "b")
    taken = queue.take(lambda one: "It is for another checkpoint." if one.name == "a" else "")
    assert taken is not None and taken.name == "b"
    content = queue.read()
    assert content.get(1).state == "waiting" and content.get(1).why == "It is for another checkpoint."


def test_what_cannot_be_done(tmp_path: Path) -> None:
    queue = filled(tmp_path, "a", "b")
    with queue.at_work():
        queue.take()
        for act in (lambda: queue.remove(1), lambda: queue.edit(queue.read().get(1))):
            with pytest.raises(ConfigError, match="being trained"):
                act()
        with pytest.raises(ConfigError, match="doesn't wait"):
            queue.move(1, to=1)
        for place in (0, -1, "1", None, 1.5, True):
            with pytest.raises(ConfigError, match="place can't be"):
                queue.move(2, to=place)
        with pytest.raises(ConfigError, match="no entry 7; there are: 1, 2"):
            queue.remove(7)
        for name in ("a", "b"):
            with pytest.raises(ConfigError, match="already"):
                queue.add(entry(name))
        with pytest.raises(ConfigError, match=r"already \(entry 1\)"):
            queue.edit(replace(queue.read().get(2), name="a"))
        queue.ended(1, "done")
        assert queue.add(entry("a")).id == 3, "once it is done, the name may come again"


def test_only_one_works_on_it(tmp_path: Path) -> None:
    queue = filled(tmp_path, "a")
    with queue.at_work():
        with pytest.raises(HostBusyError, match="worked on by another process"), Queue(tmp_path).at_work():
            pass
        queue.add(entry("b"))
    with queue.at_work():
        assert order(queue) == ["a", "b"]


def test_old_entries_are_dropped_and_there_is_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [entry(f"n{n}", state="done").to_dict() | {"id": n} for n in range(1, KEPT + 10)]
    (tmp_path / "queue.json").write_text(json.dumps({"version": 1, "entries": rows}))
    queue = filled(tmp_path, "new")
    assert len(order(queue, "done")) == KEPT and queue.read().entries[-1].id == KEPT + 10
    monkeypatch.setattr(module, "MOST", KEPT + 1)
    with pytest.raises(ConfigError, match=f"has {KEPT + 1} entries"):
        queue.add(entry("more"))
    assert MOST > KEPT


KILLED = """
import sys, time
from pathlib import Path
from lora_trainer.runs.queue import Queue
queue = Queue(Path(sys.argv[1]))
with queue.at_work():
    queue.take()
    print("taken", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_killed_process_leaves_an_interrupted_entry(tmp_path: Path) -> None:
    queue = filled(tmp_path, "a", "b")
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "taken\n"
        assert queue.read().running == 1
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    content = queue.read()
    first = content.get(1)
    assert content.running is None and (first.state, first.why) == ("waiting", INTERRUPTED) and first.interrupted
    assert order(queue) == ["a", "b"], "it keeps its place"
    with queue.at_work():
        taken = queue.take()
        assert taken is not None and taken.id == 1 and taken.interrupted and taken.why == ""


ADDING = """
import sys
from pathlib import Path
from lora_trainer.runs.queue import Queue
from lora_trainer.runs.queued import Queued
for n in range(25):
    Queue(Path(sys.argv[1])).add(Queued(0, f"{sys.argv[2]}{n}", "/data", {}))
"""


def test_two_processes_lose_nothing(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", ADDING, str(tmp_path), name], cwd=ROOT, stderr=subprocess.PIPE)
        for name in ("x", "y")
    ]
    for process in processes:
        assert process.wait(120) == 0, process.stderr.read() if process.stderr else ""
    entries = Queue(tmp_path).read().entries
    assert sorted(one.id for one in entries) == list(range(1, 51))
    assert {one.name for one in entries} == {f"{name}{n}" for name in "xy" for n in range(25)}
    assert [one.name for one in entries if one.name[0] == "x"] == [f"x{n}" for n in range(25)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "queue.json isn't valid JSON"), ("[]", "queue.json isn't a JSON object"), ("{}", "is damaged"),
        ('{"version": 1, "entries": {}}', "is damaged"), ('{"version": "x", "entries": []}', "is damaged"),
        ('{"version": 1, "entries": [5]}', "an entry has no number"),
        ('{"version": 2, "entries": []}', "later version"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_said_and_never_replaced(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "queue.json"
    path.write_text(content)
    queue = Queue(tmp_path)
    for act in (queue.read, queue.hold, lambda: queue.add(entry("a")), lambda: queue.take()):
        with pytest.raises(FileError, match=words):
            act()
    assert path.read_text() == content


def test_a_damaged_entry_fails_alone(tmp_path: Path) -> None:
    good = entry("good").to_dict() | {"id": 2}
    rows = [{"id": 1, "state": "waiting"}, good, {"id": 3, "name": 5, "state": "dancing", "config": []}]
    (tmp_path / "queue.json").write_text(json.dumps({"version": 1, "entries": rows, "next_id": "x", "held": "no"}))
    queue = Queue(tmp_path)
    content = queue.read()
    assert [one.state for one in content.entries] == ["failed", "waiting", "failed"] and content.next_id == 4
    assert "damaged; remove it" in content.get(1).why and not content.held
    taken = queue.take()
    assert taken is not None and taken.name == "good"
    queue.remove(1)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    queue = Queue(tmp_path / "file")
    assert queue.read().entries == []
    with pytest.raises(FileError, match="Can't write"):
        queue.add(entry("a"))


def test_how_an_interrupted_entry_goes_on(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "zork")
    plain = entry("zork", overwrite=True, taken="2026-01-02")
    interrupted = plain.interrupt()
    assert begun(tmp_path, plain) == (False, True)
    assert begun(tmp_path, interrupted) == (False, True), "nothing of it is there"
    folder.state.parent.mkdir(parents=True)
    folder.state.touch()
    folder.write_run({"began": "2026-01-01"})
    assert begun(tmp_path, interrupted) == (False, True), "the state is that of the run which it was to replace"
    folder.write_run({"began": "2026-01-03"})
    assert begun(tmp_path, interrupted) == (True, True)
    kept = replace(interrupted, overwrite=False)
    assert begun(tmp_path, kept) == (True, False)
    folder.state.unlink()
    assert begun(tmp_path, kept) == (False, True), "what it left before its first state is in nobody's way"
