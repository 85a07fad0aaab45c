"""How a job ends: a sentence and a state, whatever happens."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_trainer.errors import ConfigError, DatasetError, HostBusyError
from lora_trainer.hosts.base import Progress
from lora_trainer.ui.job import Job
from lora_trainer.ui.request import TRAIN_KEYS
from tests.support.office import OfficeHost, until


def test_stop_saves(job: Job, host: OfficeHost, values: dict[str, Any], tmp_path: Path) -> None:
    values["config"]["max_train_steps"] = 500
    host.act = lambda progress: (job.stop(), None)[1] if progress.done == 3 and progress.total == 500 else None
    job.start({**values, "test": True})
    job.wait(60)
    status = job.status()
    assert status["state"] == "stopped" and 3 <= status["step"] <= 5 and not status["tests"]
    assert (tmp_path / "loras" / "zork.safetensors").is_file()
    assert (tmp_path / "loras" / "zork.json").is_file(), "what was saved has a card, too"
    job.start({**values, "resume": True, "config": {**values["config"], "max_train_steps": 500}})
    assert until(job, "training", "failed", "stopped", "done")["step"] >= 3
    job.stop()
    assert job.stop() in (True, False)


def test_stop_while_preparing(job: Job, host: OfficeHost, values: dict[str, Any], tmp_path: Path) -> None:
    host.act = lambda progress: (job.stop(), None)[1]
    job.start(values)
    job.wait(60)
    status = job.status()
    assert status["state"] == "stopped" and status["step"] == 0 and "nothing was trained" in status["message"]
    assert not list((tmp_path / "loras").glob("*")) and not host.taken


def test_a_lost_model_is_saved_and_told(job: Job, host: OfficeHost, values: dict[str, Any], tmp_path: Path) -> None:
    def lose(progress: Progress) -> None:
        if progress.done >= 2 and progress.total == 4:
            raise HostBusyError("The checkpoint was unloaded.")

    host.act = lose
    job.start(values)
    job.wait(60)
    status = job.status()
    assert status["state"] == "failed" and status["error"] == "The checkpoint was unloaded."
    assert (tmp_path / "loras" / "zork.safetensors").is_file() and host.calls == ["begin", "end"]


def test_errors_are_sentences(
    job: Job, host: OfficeHost, values: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for wrong, kind in (
        ({"name": ""}, ConfigError), ({"name": "a/b"}, ConfigError), ({"dataset": str(tmp_path / "no")}, DatasetError),
        ({"config": {"rank": 3}}, ConfigError), ({"config": [1]}, ConfigError), ({"surprise": 1}, ConfigError),
    ):  # fmt: skip
        with pytest.raises(kind):
            job.start({**values, **wrong})
        assert not job.running
    (tmp_path / "empty").mkdir()
    job.start({**values, "dataset": str(tmp_path / "empty")})
    job.wait(60)
    assert job.status()["state"] == "failed" and "Traceback" not in caplog.text
    host.act = lambda progress: 1 / 0
    job.start(values)
    job.wait(60)
    status = job.status()
    assert status["state"] == "failed" and "ZeroDivisionError" in status["error"] and "Traceback" in caplog.text
    host.act = lambda progress: (_ for _ in ()).throw(RuntimeError("CUDA out of memory. Tried…"))
    job.start(values)
    job.wait(60)
    assert "enough memory: use a smaller resolution" in job.status()["error"]
    host.act = lambda progress: None
    job.start(values)
    job.wait(60)
    assert job.status()["state"] == "done" and job.status()["error"] == "", "the next run begins clean"


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt(), GeneratorExit(), AssertionError()])
def test_whatever_ends_the_thread_ends_in_a_sentence(
    job: Job, host: OfficeHost, values: dict[str, Any], error: BaseException
) -> None:
    def end(progress: Progress) -> None:
        raise error

    host.act = end
    job.start(values)
    job.wait(60)
    status = job.status()
    assert status["state"] == "failed" and type(error).__name__ in status["error"]
    assert host.calls == ["begin", "end"]


def test_a_request_cannot_name_code(job: Job, values: dict[str, Any]) -> None:
    values["config"]["optimizer_type"] = "unittest.__main__.X"
    with pytest.raises(ConfigError, match="--set optimizer_type"):
        job.start(values)
    assert job.status()["state"] == "idle"
    assert "typed" not in TRAIN_KEYS


def test_a_program_that_ends_saves_first(job: Job, host: OfficeHost, values: dict[str, Any], tmp_path: Path) -> None:
    values["config"]["max_train_steps"] = 5000
    job.start(values)
    until(job, "training")
    while job.status()["step"] < 2:
        time.sleep(0.01)
    job.close()
    assert job.status()["state"] == "stopped" and (tmp_path / "loras/zork.safetensors").is_file()


def test_an_error_of_any_kind_says_what_was_saved(
    job: Job, host: OfficeHost, values: dict[str, Any], tmp_path: Path
) -> None:
    predict, calls = host.model.predict, [0]

    def failing(*args: Any) -> Any:
        calls[0] += torch.is_grad_enabled()  # otherwise it is the base model that is compared with
        if calls[0] >= 3:
            raise MemoryError
        return predict(*args)

    host.model.predict = failing  # type: ignore[method-assign]
    job.start(values)
    job.wait(60)
    status = job.status()
    assert status["state"] == "failed" and "enough memory" in status["error"]
    assert any("until step 2 is saved" in notice for notice in status["notices"])
    assert status["outputs"] == [str(tmp_path / "loras/zork.safetensors")]
