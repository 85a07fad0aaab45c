"""The queue and the settings of runs from the page's buttons, without a browser and without gradio."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lora_trainer.config import OPTIONS, RunConfig
from lora_trainer.training.folder import RunFolder
from lora_trainer.ui.actions import settings, start
from lora_trainer.ui.desk import Desk
from lora_trainer.ui.forms import CUSTOM, Page
from lora_trainer.ui.job import Job
from tests.support.tab import page


def filled(desk: Desk, values: dict[str, Any], **options: Any) -> Page:
    return page(desk, name=values["name"], dataset=values["dataset"], trigger="zap", options=options)


def test_a_training_is_put_into_the_queue_and_changed_there(job: Job, values: dict[str, Any]) -> None:
    desk = Desk(job)
    told = start.enqueue(desk, filled(desk, values, network_dim="3")).html["message"]
    assert "zork is in the queue; it waits until the queue is started." in told
    asked = start.enqueue(desk, filled(desk, values, network_dim="5")).html["message"]
    assert "zork is in the queue already, at place 1." in asked and 'data-choice="queue+change"' in asked
    told = start.enqueue(desk, filled(desk, values, network_dim="5"), "change").html["message"]
    assert "zork is in the queue;" in told
    (entry,) = job.line.queue.read().waiting
    assert (entry.id, entry.config["network_dim"], entry.trigger, entry.test) == (1, 5, "zap", True)
    back = settings.use(desk, desk.page({"network_dim": "8", "name": ""}), "queue 1")
    assert back.values == {**back.values, "name": "zork", "dataset": values["dataset"], "trigger": "zap"}
    assert back.options["network_dim"] == 5 and back.values["preset"] == CUSTOM and set(back.options) == set(OPTIONS)
    assert desk.page({}).name == "zork", "the plan and what follows know of it"


def test_what_is_missing_or_taken_is_said_before_anything_waits(job: Job, values: dict[str, Any]) -> None:
    desk = Desk(job)
    assert "has no name" in start.enqueue(desk, filled(desk, {**values, "name": ""})).html["message"]
    assert "learning_rate" in start.enqueue(desk, filled(desk, values, learning_rate="fast")).html["message"]
    loras: Path = job.host.lora_dir
    loras.mkdir(exist_ok=True)
    (loras / "zork.safetensors").write_bytes(b"mine")
    asked = start.enqueue(desk, filled(desk, values, learning_rate="0.001")).html["message"]
    assert "exists already" in asked and 'data-choice="queue+overwrite"' in asked
    assert job.line.queue.read().entries == []
    assert "in the queue" in start.enqueue(desk, filled(desk, values), "overwrite").html["message"]
    assert job.line.queue.read().waiting[0].overwrite


def test_the_settings_of_a_run_fill_the_form(job: Job, tmp_path: Path) -> None:
    desk, folder = Desk(job), RunFolder(tmp_path / "out", "old")
    folder.path.mkdir(parents=True)
    config = RunConfig().replace(network_dim=6, learning_rate=3e-4).to_dict()
    folder.write_run({"name": "old", "dataset": "/photos", "trigger": "zap", "config": config})
    back = settings.use(desk, desk.page({}), "run old")
    assert (back.values["name"], back.values["dataset"], back.options["network_dim"]) == ("old", "/photos", 6)
    assert "settings of the run old; choose another name to keep it" in back.html["message"]
    for source in ("run nobody", "run ../old", "queue 9", "queue x", ""):
        assert "lt-problem" in settings.use(desk, desk.page({}), source).html["message"], source
    assert desk.page({}).name == "old", "what can't be used changes nothing"
