"""The job with a tiny model: its states, its answers, and what it asks of its host."""

from __future__ import annotations

import json
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.errors import ConfigError, DatasetError, FileError, HostBusyError, NameTakenError
from lora_trainer.training.events import Before, Finished, MemoryUse, Phase, Planned, Saved, Started, StepDone
from lora_trainer.ui import shared
from lora_trainer.ui.job import Job
from lora_trainer.ui.status import MOST_POINTS, Record
from tests.support.office import OfficeHost, until


def test_a_run_from_idle_to_done(job: Job, host: OfficeHost, values: dict[str, Any], tmp_path: Path) -> None:
    assert job.status()["state"] == "idle" and not job.running
    values["config"]["sample_every_n_steps"] = 2
    identity = job.start(values)
    job.wait(60)
    status = job.status()
    assert status["state"] == "done" and status["job"] == identity, status
    assert (status["step"], status["steps"], status["epoch"], status["epochs"]) == (4, 4, 1, 1)
    assert [point[0] for point in status["losses"]] == [1, 2, 3, 4] and status["loss"] > 0 and status["average"] > 0
    assert status["outputs"] == [str(tmp_path / "loras" / "zork.safetensors")]
    assert [sample["step"] for sample in status["samples"]] == [0, 2, 4]
    assert status["samples"][1]["url"] == "/lora-trainer/report/zork/samples/step000002_00.png"
    assert status["seconds_per_step"] > 0 and status["error"] == "" and status["lr"]
    assert host.calls == ["begin", "end"]
    steps = [progress.done for progress in host.shown if progress.total == 4 and progress.text.startswith("Step")]
    assert steps[0] == 1 and steps[-1] == 4
    assert json.loads((tmp_path / "out" / "zork" / "run.json").read_text())["config"]["clip_skip"] == 2, (
        "host's default"
    )
    assert json.loads(json.dumps(status)) is not None


def test_the_card_is_written(job: Job, host: OfficeHost, values: dict[str, Any], tmp_path: Path) -> None:
    values["config"]["sample_every_n_steps"] = 4
    host.modules = 3
    job.start(values)
    job.wait(60)
    card = json.loads((tmp_path / "loras" / "zork.json").read_text())
    assert card["activation text"] == "zork" and card["sd version"] == "SD1" and card["preferred weight"] > 0
    assert (tmp_path / "loras" / "zork.png").is_file()
    assert any("applies 3" in notice for notice in job.status()["notices"])


def test_a_test_follows_and_the_card_gets_its_picture(job: Job, values: dict[str, Any], tmp_path: Path) -> None:
    job.start({**values, "test": True})
    seen = until(job, "testing", "failed")
    assert seen["state"] == "testing", seen
    job.wait(60)
    status = job.status()
    assert status["state"] == "done", status
    assert status["report"] == "/lora-trainer/report/zork/report.html"
    assert {row["kind"] for row in status["tests"]} == {"strength", "integration"}
    assert all("<lora:zork:" in row["prompt"] for row in status["tests"])
    assert (tmp_path / "loras" / "zork.png").is_file()
    assert (tmp_path / "out" / "zork" / "report.json").is_file()


def test_the_test_that_follows_asks_what_was_given(job: Job, values: dict[str, Any], tmp_path: Path) -> None:
    plan = {"subject": "person", "prompts": "{lora} {trigger} on mars", "strengths": [1.0], "seeds": [3]}
    job.start({**values, "test": True, "test_plan": plan})
    job.wait(60)
    report = json.loads((tmp_path / "out" / "zork" / "report.json").read_text())
    assert report["prompts"]["integration"] == ["<lora:zork:0.8> zork on mars"]
    assert (report["subject"], report["seeds"]) == ("person", [3])


@pytest.mark.parametrize(
    "plan", [{"subject": "cat"}, {"prompts": {"a": 1}}, {"lora": "zork"}, {"strengths": "much"}, 3]
)
def test_a_test_that_cannot_be_made_keeps_the_training_from_beginning(
    job: Job, values: dict[str, Any], tmp_path: Path, plan: Any
) -> None:
    with pytest.raises(ConfigError):
        job.start({**values, "test": True, "test_plan": plan})
    assert job.status()["state"] == "idle" and not (tmp_path / "out" / "zork").exists()


def test_a_test_alone_takes_its_values(job: Job, values: dict[str, Any], tmp_path: Path) -> None:
    job.start(values)
    job.wait(60)
    job.test({"lora": "zork", "strengths": "0.5,1", "prompts": "{lora} in rain", "seeds": "4", "steps": 3})
    job.wait(60)
    report = json.loads((tmp_path / "out" / "zork" / "report.json").read_text())
    assert [row["strength"] for row in report["strengths"]] == [0.0, 0.5, 1.0]
    assert report["seeds"] == [4] and report["settings"]["steps"] == 3 and len(report["prompts"]["integration"]) == 1
    for wrong in ({"steps": "many"}, {"seeds": "x"}, {"strengths": "9"}, {"colour": 1}):
        with pytest.raises(ConfigError):
            job.test({"lora": "zork", **wrong})
    with pytest.raises(FileError, match="nobody"):
        job.test({"lora": "nobody"})


def test_a_second_start_is_refused(job: Job, host: OfficeHost, values: dict[str, Any]) -> None:
    held = threading.Event()
    host.act = lambda progress: (held.wait(20), None)[1]
    job.start(values)
    with pytest.raises(HostBusyError, match="zork"):
        job.start({**values, "name": "other"})
    with pytest.raises(HostBusyError):
        job.test({"lora": "zork"})
    before = time.perf_counter()
    job.status()
    assert time.perf_counter() - before < 0.2, "status doesn't wait for the step"
    held.set()
    job.wait(60)
    assert job.status()["state"] == "done"
    job.start({**values, "overwrite": True})
    job.wait(60)
    assert job.status()["state"] == "done"


def test_pause_lends_the_model(job: Job, host: OfficeHost, values: dict[str, Any]) -> None:
    values["config"]["max_train_steps"] = 8
    reached = threading.Event()
    host.act = lambda progress: (
        (job.pause(), reached.set(), None)[2] if progress.done == 2 and progress.total == 8 else None
    )
    job.start(values)
    assert reached.wait(60)
    paused = until(job, "paused")
    time.sleep(0.2)
    assert job.status()["step"] == paused["step"] and host.calls[-1] == "lend"
    host.act = lambda progress: None
    assert job.resume()
    job.wait(60)
    assert job.status()["state"] == "done" and job.status()["step"] == 8
    assert host.calls == ["begin", "lend", "take", "end"]


def test_a_paused_job_can_be_stopped(job: Job, host: OfficeHost, values: dict[str, Any]) -> None:
    values["config"]["max_train_steps"] = 8
    host.act = lambda progress: (job.pause(), None)[1] if progress.done == 2 and progress.total == 8 else None
    job.start(values)
    until(job, "paused")
    job.stop()
    job.wait(60)
    assert job.status()["state"] == "stopped" and host.calls[-1] == "end"


def test_check(job: Job, values: dict[str, Any]) -> None:
    found = job.check({"dataset": values["dataset"]})
    assert found["images"] == 5 and found["folders"][0]["trigger"] == "zork" and found["lines"]
    with pytest.raises(DatasetError):
        job.check({})


def test_a_long_curve_is_thinned(tmp_path: Path) -> None:
    record = Record(job="j", name="zork", output=tmp_path)
    for step in range(1, 10 * MOST_POINTS):
        record.take(StepDone(step, 10 * MOST_POINTS, 1, 0.5, 0.5, {}, 1.0, 0.1))
    points = record.to_dict()["losses"]
    gaps = {second[0] - first[0] for first, second in pairwise(points)}
    assert MOST_POINTS / 2 <= len(points) <= MOST_POINTS and len(gaps) == 1
    assert record.to_dict()["eta_seconds"] is None
    record.enter("training", "")
    assert record.to_dict()["eta_seconds"] == pytest.approx(0.1)
    record.take(Saved(tmp_path / "zork.safetensors", 1, 1, True))
    record.take(Saved(tmp_path / "zork.safetensors", 1, 1, True))
    record.take(Finished(tmp_path / "zork.safetensors", 3, 9, True))
    assert record.to_dict()["outputs"] == [str(tmp_path / "zork.safetensors")]
    assert "after step 3 of 9" in record.to_dict()["message"]


def test_the_curve_keeps_what_was_compared_with_the_base_model(tmp_path: Path) -> None:
    record, steps = Record(job="j", name="zork", output=tmp_path), 10 * MOST_POINTS
    for step in range(1, steps):
        baseline = 0.75 if step % 50 == 1 else None
        record.take(StepDone(step, steps, 1, 0.5, 0.5, {}, 1.0, 0.1, baseline))
    points = record.to_dict()["losses"]
    compared = [step for step, _, baseline in points if baseline == 0.75]
    assert compared == list(range(1, steps, 50)) and len(points) <= MOST_POINTS
    before = Before(losses=((1, 0.5), (2, 0.4)), baselines=((2, 0.6),))
    record.take(Started(2, steps, 1, 5, 9, 99, before=before))
    assert record.to_dict()["losses"] == [(1, 0.5, None), (2, 0.4, 0.6)]


def test_plan_and_memory_are_told(tmp_path: Path) -> None:
    record = Record(job="j", name="zork", output=tmp_path)
    assert record.to_dict()["plan"] is None and record.to_dict()["memory"] is None

    record.take(Planned("It fits.", 8.0, (Phase("training", 2.5, 4.0),)))
    record.take(MemoryUse(1.5, 2.0, 8.0))
    status = json.loads(json.dumps(record.to_dict()))
    phase = {"name": "training", "gb": 2.5, "minutes": 4.0, "measured_gb": None, "measured_minutes": None}
    assert status["plan"] == {"text": "It fits.", "limit_gb": 8.0, "phases": [phase]}
    assert status["memory"] == {"now_gb": 1.5, "peak_gb": 2.0, "limit_gb": 8.0}


def test_a_continued_run_shows_its_curve_and_its_files(
    job: Job, host: OfficeHost, values: dict[str, Any], tmp_path: Path
) -> None:
    values["config"] |= {"max_train_steps": 12, "save_every_n_steps": 2, "sample_every_n_steps": 2}
    host.act = lambda progress: job.stop() if progress.text.startswith("Step 5") else None
    job.start(values)
    job.wait(60)
    before = job.status()
    assert before["state"] == "stopped" and len(before["losses"]) >= 5
    host.act = lambda progress: None
    (tmp_path / "loras/zork.safetensors").unlink()  # as after a crash
    with pytest.raises(NameTakenError) as caught:
        job.start(values)
    assert caught.value.choices == ("resume", "overwrite")
    job.start({**values, "resume": True})
    job.wait(60)
    status = job.status()
    assert status["state"] == "done", status
    assert [step for step, *_ in status["losses"]] == list(range(1, 13))
    assert status["losses"][: len(before["losses"])] == before["losses"]
    names = [Path(path).name for path in status["outputs"]]
    assert names == [*(f"zork-step{step:08d}.safetensors" for step in range(2, 12, 2)), "zork.safetensors"]
    assert [sample["step"] for sample in status["samples"]] == list(range(0, 13, 2))
    assert all(
        (tmp_path / "out/zork/samples" / sample["url"].rsplit("/", 1)[1]).is_file() for sample in status["samples"]
    )


def test_the_shared_job_is_one(host: OfficeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "_job", None)
    first = shared.shared_job(lambda: host, lambda: tmp_path)
    assert shared.shared_job(lambda: OfficeHost(tmp_path), lambda: tmp_path / "x") is first
