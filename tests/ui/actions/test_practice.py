"""The practice project, installed from the tab."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lora_trainer.ui.actions import images, practice
from lora_trainer.ui.desk import Desk
from tests.support.tab import FakeJob, page


def test_the_practice_project_is_installed_and_filled_in(desk: Desk, job: FakeJob, tmp_path: Path) -> None:
    job.host.models = tmp_path / "models"
    answer = practice.install(desk, page(desk))
    dataset = job.output / "datasets" / "practice"
    assert answer.values == {"dataset": str(dataset), "trigger": "zorbo"} and job.host.refreshed == 1
    assert (
        "tiny-world.safetensors" in answer.html["practice_answer"]
        and "lt-problem" not in answer.html["practice_answer"]
    )
    assert len(list((dataset / "10_zorbo").glob("*.png"))) == 18
    assert sorted(path.name for path in job.host.models.iterdir()) == ["tiny-world.safetensors", "tiny-world.yaml"]
    assert images.check(desk, page(desk, dataset=str(dataset), options={"bucket_reso_steps": "16"})).html[
        "check_answer"
    ]
    caption = dataset / "10_zorbo" / "01.txt"
    caption.write_text("mine")
    before = {
        path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file() and "json" not in path.name
    }
    assert practice.install(desk, page(desk)).values["dataset"] == str(dataset)
    assert {path: path.stat().st_mtime_ns for path in before} == before and caption.read_text() == "mine"


@pytest.mark.parametrize("name", ["tiny-world.safetensors", "tiny-world.yaml"])
def test_the_practice_project_replaces_nothing(desk: Desk, job: FakeJob, tmp_path: Path, name: str) -> None:
    job.host.models = tmp_path
    (tmp_path / name).write_bytes(b"somebody's own")
    answer = practice.install(desk, page(desk))
    assert f"{name} already exists with other contents" in answer.html["practice_answer"] and not answer.values
    assert (tmp_path / name).read_bytes() == b"somebody's own" and job.host.refreshed == 0
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("tiny")] == [name]


def test_a_config_of_an_extension_that_was_moved_is_renewed(desk: Desk, job: FakeJob, tmp_path: Path) -> None:
    job.host.models = tmp_path
    practice.install(desk, page(desk))
    config = tmp_path / "tiny-world.yaml"
    right = config.read_text()
    config.write_text(re.sub(r"version: .*clip[^}\n]*", 'version: "/old/place/clip"', right))
    assert config.read_text() != right
    practice.install(desk, page(desk))
    assert config.read_text() == right


def test_without_a_webui_it_is_the_images_alone(desk: Desk, job: FakeJob) -> None:
    answer = practice.install(desk, page(desk))
    assert answer.values["dataset"] == str(job.output / "datasets" / "practice") and job.host.refreshed == 0
    assert "Press Check" in answer.html["practice_answer"] and "checkpoints" not in answer.html["practice_answer"]
