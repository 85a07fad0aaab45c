"""The queue's work: what is trained when, in which order, and what a stop or a restart does to it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.errors import ConfigError, DatasetError, HostBusyError, NameTakenError
from lora_trainer.hosts.base import Progress
from lora_trainer.runs.listing import list_runs
from lora_trainer.runs.queue import Queue
from lora_trainer.runs.queued import INTERRUPTED
from lora_trainer.ui.job import Job
from tests.support.office import OfficeHost
from tests.support.tiny_host import make_dataset

LONG = 500  # steps


def finished(job: Job, seconds: float = 60) -> dict[str, str]:
    """Wait for the queue to end; the entries' states by name."""
    job.line.wait(seconds)
    assert job.line._thread is None
    return states(job)


def states(job: Job) -> dict[str, str]:
    return {row["name"]: row["state"] for row in job.line.content()["entries"]}


def why(job: Job, name: str) -> str:
    return next(row["why"] for row in job.line.content()["entries"] if row["name"] == name)


def written(host: OfficeHost) -> list[str]:
    """The LoRA files in the order in which they were written."""
    return [path.stem for path in sorted(host.lora_dir.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)]


def at_step(step: int, act: Callable[[], Any]) -> Callable[[Progress], None]:
    """Act once, at a step of a long run."""
    done = threading.Event()

    def acting(progress: Progress) -> None:
        if progress.total == LONG and progress.done >= step and not done.is_set():
            done.set()
            act()

    return acting


@pytest.fixture
def long(values: dict[str, Any]) -> dict[str, Any]:
    return {**values, "config": {**values["config"], "max_train_steps": LONG}}


def test_the_queue_trains_in_its_order(job: Job, host: OfficeHost, values: dict[str, Any], tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        job.line.add({**values, "name": name})
    assert not job.running and job.status()["queue"] == 3, "adding begins nothing where nothing is at work"
    job.line.queue.move(3, to=1)
    job.line.start()
    assert finished(job) == {"a": "done", "b": "done", "c": "done"}
    assert written(host) == ["c", "a", "b"] and job.status()["queue"] == 0
    facts = json.loads((tmp_path / "out/a/run.json").read_text())
    assert facts["config"]["clip_skip"] == 2 and facts["end"]["state"] == "done", "the host's defaults, as when added"


def test_what_is_added_while_a_run_is_at_work_follows_by_itself(
    job: Job, host: OfficeHost, values: dict[str, Any]
) -> None:
    go = threading.Event()
    host.act = lambda progress: (go.wait(20), None)[1]
    job.start({**values, "name": "first"})
    with pytest.raises(HostBusyError) as caught:
        job.start({**values, "name": "second"})
    assert caught.value.choices == ("queue",), "what the page offers"
    job.line.add({**values, "name": "second"})
    job.line.add({**values, "name": "third"})
    assert job.status()["queue"] == 2 and job.status()["name"] == "first"
    go.set()
    assert finished(job) == {"second": "done", "third": "done"}
    assert written(host) == ["first", "second", "third"]


def test_a_run_that_fails_does_not_stop_the_next(
    job: Job, host: OfficeHost, values: dict[str, Any], tmp_path: Path
) -> None:
    gone = make_dataset(tmp_path / "gone")
    job.line.add({**values, "name": "gone", "dataset": str(gone)})
    job.line.add({**values, "name": "old"})
    job.line.add({**values, "name": "taken"})
    job.line.add({**values, "name": "nan"})
    job.line.add({**values, "name": "good"})
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras/taken.safetensors").write_bytes(b"mine")
    gone.rename(tmp_path / "moved")
    path = tmp_path / "out/queue.json"
    content = json.loads(path.read_text())
    content["entries"][1]["config"]["rank"] = 3
    path.write_text(json.dumps(content))
    predict = host.model.predict
    host.model.predict = lambda *args: (  # type: ignore[method-assign]
        predict(*args) * float("nan") if job.record.name == "nan" else predict(*args)
    )
    job.line.start()
    assert finished(job) == {"gone": "failed", "old": "failed", "taken": "failed", "nan": "failed", "good": "done"}
    assert str(gone) in why(job, "gone") and "doesn't exist" in why(job, "gone")
    assert "rank" in why(job, "old") and "taken.safetensors exists already" in why(job, "taken")
    assert "nan" in why(job, "nan").lower() and (tmp_path / "loras/taken.safetensors").read_bytes() == b"mine"
    (tmp_path / "moved").rename(gone)
    job.line.edit(1, {"trigger": "zap"})
    job.line.start()
    assert finished(job)["gone"] == "done", "edited, it waits again"
    assert json.loads((tmp_path / "out/gone/run.json").read_text())["trigger"] == "zap"


def test_a_stop_ends_the_run_and_holds_the_queue(
    job: Job, host: OfficeHost, values: dict[str, Any], long: dict[str, Any]
) -> None:
    job.line.add({**long, "name": "a"})
    job.line.add({**values, "name": "b"})
    host.act = at_step(2, job.stop)
    job.line.start()
    assert finished(job) == {"a": "stopped", "b": "waiting"}
    status = job.status()
    assert status["state"] == "stopped" and "is saved. The queue is held, with 1 waiting" in status["message"]
    assert job.line.content()["held"] and written(host) == ["a"]
    job.line.start()
    assert finished(job) == {"a": "stopped", "b": "done"} and not job.line.content()["held"]


def test_a_stop_of_the_run_at_hand_holds_what_was_to_follow(
    job: Job, host: OfficeHost, values: dict[str, Any], long: dict[str, Any]
) -> None:
    def act() -> None:
        job.line.add({**values, "name": "next"})
        host.token.cancel()  # the host's own Interrupt

    host.act = at_step(2, act)
    job.start({**long, "name": "first"})
    job.wait(60)
    assert finished(job) == {"next": "waiting"} and job.line.content()["held"]


def test_hold_lets_the_run_at_hand_finish(job: Job, host: OfficeHost, values: dict[str, Any]) -> None:
    for name in ("a", "b"):
        job.line.add({**values, "name": name})
    host.act = lambda progress: (job.line.queue.hold(), None)[1] if job.record.name == "a" else None
    job.line.start()
    assert finished(job) == {"a": "done", "b": "waiting"} and job.status()["state"] == "done"


def test_a_pause_is_the_runs_own(job: Job, host: OfficeHost, values: dict[str, Any], long: dict[str, Any]) -> None:
    job.line.add({**long, "name": "a"})
    job.line.add({**values, "name": "b"})
    host.act = at_step(2, job.pause)
    job.line.start()
    end = time.monotonic() + 60
    while job.status()["state"] != "paused" and time.monotonic() < end:
        time.sleep(0.01)
    assert states(job) == {"a": "running", "b": "waiting"} and not job.line.content()["held"]
    host.act = at_step(4, job.stop)
    job.resume()
    assert finished(job) == {"a": "stopped", "b": "waiting"}


def test_a_program_that_ends_leaves_an_entry_to_be_continued(
    job: Job, host: OfficeHost, values: dict[str, Any], long: dict[str, Any], tmp_path: Path
) -> None:
    job.line.add({**long, "name": "a", "config": {**long["config"], "save_every_n_steps": 3}})
    job.line.add({**values, "name": "b"})
    reached = threading.Event()
    host.act = at_step(5, reached.set)
    job.line.start()
    assert reached.wait(60)
    job.close()
    assert states(job) == {"a": "waiting", "b": "waiting"} and why(job, "a") == INTERRUPTED
    (run,) = list_runs(tmp_path / "out", tmp_path / "loras")
    assert run.state == "interrupted" and run.offered, "nobody asked for its end"
    again = Job(lambda: host, lambda: tmp_path / "out")
    assert not again.running and again.status()["queue"] == 2, "nothing begins by itself"
    first: list[int] = []
    host.act = lambda progress: (
        (first.append(progress.done), again.stop())[1] if progress.total == LONG and progress.done else None
    )
    again.line.start()
    assert finished(again) == {"a": "stopped", "b": "waiting"}, why(again, "a")
    assert first[0] >= run.step and again.status()["step"] >= run.step, "it went on where it was"


def test_a_program_that_ends_interrupts_a_run_without_a_queue(
    job: Job, host: OfficeHost, long: dict[str, Any], tmp_path: Path
) -> None:
    reached = threading.Event()
    host.act = at_step(3, reached.set)
    job.start(long)
    assert reached.wait(60)
    job.close()
    (run,) = list_runs(tmp_path / "out", tmp_path / "loras")
    assert run.offered and run.line.startswith(f"zork stopped at step {run.step} of {LONG}, today")
    again = Job(lambda: host, lambda: tmp_path / "out")
    host.act = at_step(run.step + 2, again.stop)
    again.start({"name": "zork", "resume": True})
    again.wait(60)
    assert again.status()["step"] >= run.step + 2 and again.status()["losses"][0][0] == 1
    (run,) = list_runs(tmp_path / "out", tmp_path / "loras")
    assert run.state == "stopped" and not run.offered, "this time somebody asked for its end"


def test_an_entry_for_another_checkpoint_waits_and_the_rest_goes_on(
    job: Job, host: OfficeHost, values: dict[str, Any]
) -> None:
    job.line.add({**values, "name": "a"})
    host.model.info = replace(host.model.info, checkpoint="other.safetensors")
    job.line.add({**values, "name": "b"})
    job.line.start()
    assert finished(job) == {"a": "waiting", "b": "done"}
    assert why(job, "a") == (
        "a is for tiny.safetensors, but other.safetensors is loaded. Load tiny.safetensors, then start it again."
    )
    host.model.info = replace(host.model.info, checkpoint="tiny.safetensors")
    job.line.start()
    assert finished(job)["a"] == "done"


def test_a_checkpoint_that_changes_before_the_entrys_turn_comes(
    job: Job, host: OfficeHost, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    job.line.add({**values, "name": "a"})
    job.line.add({**values, "name": "b"})
    glance = host.glance
    looks: list[Any] = [None, None, None, None]  # nothing is loaded yet
    monkeypatch.setattr(host, "glance", lambda: looks.pop() if looks else glance())
    host.model.info = replace(host.model.info, checkpoint="other.safetensors")
    looks[:] = [None]
    job.line.start()
    assert finished(job) == {"a": "waiting", "b": "waiting"} and "is loaded" in why(job, "a")
    assert not (job.output / "a").exists(), "nothing was begun"


def test_what_cannot_be_queued(job: Job, values: dict[str, Any], tmp_path: Path) -> None:
    for wrong, kind in (
        ({"name": ""}, ConfigError), ({"dataset": str(tmp_path / "no")}, DatasetError), ({"surprise": 1}, ConfigError),
        ({"config": {"rank": 3}}, ConfigError), ({"checkpoint": 5}, ConfigError),
        ({"config": {"optimizer_type": "unittest.__main__.X"}}, ConfigError),
    ):  # fmt: skip
        with pytest.raises(kind):
            job.line.add({**values, **wrong})
    assert job.line.content()["entries"] == []
    job.start(values)
    job.wait(60)
    with pytest.raises(NameTakenError) as caught:
        job.line.add(values)
    assert caught.value.choices == ("resume", "overwrite")
    job.line.add({**values, "overwrite": True})
    with pytest.raises(ConfigError, match="already"):
        job.line.add({**values, "overwrite": True})
    with pytest.raises(ConfigError, match="surprise"):
        job.line.edit(1, {"surprise": 1})
    assert job.line.edit(1, {"trigger": "x"})["overwrite"], "what was chosen stays chosen"


def test_another_process_works_on_the_queue(job: Job, host: OfficeHost, values: dict[str, Any]) -> None:
    job.line.add({**values, "name": "a"})
    with Queue(job.output).at_work():
        with pytest.raises(HostBusyError, match="another process"):
            job.line.start()
        go = threading.Event()
        host.act = lambda progress: (go.wait(20), None)[1]
        job.start({**values, "name": "mine"})
        job.line.add({**values, "name": "b"})
        go.set()
        job.wait(60)
    assert states(job) == {"a": "waiting", "b": "waiting"}


def test_an_entry_is_tested_if_that_was_asked_for(job: Job, values: dict[str, Any], tmp_path: Path) -> None:
    plan = {"prompts": "{lora} on mars", "seeds": [4]}
    with pytest.raises(ConfigError, match="cat"):
        job.line.add({**values, "test": True, "test_plan": {"subject": "cat"}})
    number = job.line.add({**values, "test": True, "test_plan": plan})["id"]
    job.line.edit(number, {"trigger": "zap"})
    job.line.start()
    assert finished(job) == {"zork": "done"}
    report = json.loads((tmp_path / "out/zork/report.json").read_text())
    assert report["prompts"]["integration"] == ["<lora:zork:0.8> on mars"] and report["seeds"] == [4]
