"""One run of a name at a time: who holds the lock, and what becomes of one that was left behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.errors import HostBusyError
from lora_trainer.training import lock
from lora_trainer.training.lock import SILENCE, held, in_use

ROOT = Path(__file__).resolve().parents[2]
HOLDER = """
import sys, time
from pathlib import Path
from lora_trainer.training.lock import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def write_lock(path: Path, age: float = 0.0, **owner: Any) -> None:
    path.write_text(json.dumps(owner))
    os.utime(path, (time.time() - age, time.time() - age))


def is_free(path: Path) -> bool:
    try:
        with held(path):
            return True
    except HostBusyError:
        return False


def test_a_second_one_is_refused_also_in_the_same_process(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    with held(one, two):
        for path in (one, two):
            own = rf"process {os.getpid()} on {socket.gethostname()}"
            with pytest.raises(HostBusyError, match=own) as error, held(path):
                pass
            assert "switched off" not in str(error.value), "this machine is on"
        assert not is_free(two)
    assert not list(tmp_path.iterdir())  # nothing is left behind
    assert is_free(one)


def test_the_lock_of_a_killed_process_is_taken_over_at_once(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(HostBusyError, match=f"process {holder.pid}"), held(path):
            pass
    finally:
        holder.kill()
        holder.wait()
    assert path.is_file() and is_free(path)


def test_a_pid_that_is_used_again_proves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    write_lock(path, pid=os.getpid(), started="1", host=socket.gethostname(), boot="b")
    assert is_free(path)


def test_another_machine_lives_while_it_renews_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock"
    write_lock(path, age=SILENCE / 2, pid=1, started="1", host="elsewhere", boot="other")
    with pytest.raises(HostBusyError, match=r"process 1 on elsewhere .* switched off, try again"), held(path):
        pass
    write_lock(path, age=SILENCE * 2, pid=1, started="1", host="elsewhere", boot="other")
    assert is_free(path)
    monkeypatch.setattr(lock, "BEAT", 0.01)
    with held(path):
        os.utime(path, (1, 1))
        end = time.monotonic() + 10
        while path.stat().st_mtime < 2 and time.monotonic() < end:
            time.sleep(0.01)
        assert path.stat().st_mtime > 2


def test_without_locks_of_the_system_the_owner_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_try_lock", lambda stream: None)
    path = tmp_path / "lock"
    with held(path):
        assert not is_free(path)
    assert is_free(path)
    us = lock._ourselves()
    write_lock(path, **{**us, "pid": 2**22 + 1})  # no such process
    assert is_free(path)
    write_lock(path, **{**us, "started": "1"})  # its id is used again
    assert is_free(path)
    write_lock(path, pid=1, started="1", host="elsewhere", boot="other")
    assert not is_free(path)


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", "\udcff", '{"pid": []}', "[" * 5000])
def test_a_spoilt_lock_blocks_nobody(tmp_path: Path, content: str) -> None:
    path = tmp_path / "lock"
    path.write_bytes(content.encode(errors="surrogateescape"))
    os.utime(path, (1, 1))
    assert is_free(path)


def test_to_look_whether_a_lock_is_held_disturbs_nobody(tmp_path: Path) -> None:
    """A list is asked for while runs begin; that must not make one think that another is at work."""
    path, done = tmp_path / "lock", threading.Event()

    def look() -> None:
        while not done.is_set():
            in_use(path)

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(50):
            with held(path):
                assert in_use(path)
                with pytest.raises(HostBusyError), held(path):
                    pass
    finally:
        done.set()
        for looker in lookers:
            looker.join()
    assert not in_use(path)


def test_looking_tells_the_owners_that_live_from_those_that_are_gone(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not in_use(path)
    us = lock._ourselves()
    for age, owner, lives in (
        (0, {}, False), (0, us, True), (0, {**us, "pid": 2**22 + 1}, False), (0, {**us, "started": "1"}, False),
        (SILENCE / 2, {"pid": 1, "started": "1", "host": "elsewhere", "boot": "other"}, True),
        (SILENCE * 2, {"pid": 1, "started": "1", "host": "elsewhere", "boot": "other"}, False),
    ):  # fmt: skip
        write_lock(path, age, **owner)
        assert in_use(path) is lives, (age, owner)
