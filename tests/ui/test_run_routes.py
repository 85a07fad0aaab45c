"""Runs and queue over HTTP, with a tiny model behind them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from lora_trainer.ui.access import Access
from lora_trainer.ui.job import Job
from lora_trainer.ui.routes import add_routes
from tests.support.office import OfficeHost

ADDRESS = "http://127.0.0.1:7860"


def client(job: Job, access: Access | None = None) -> TestClient:
    app = FastAPI()
    add_routes(app, job, lambda: access or Access())
    return TestClient(app, base_url=ADDRESS)


@pytest.fixture
def web(job: Job) -> TestClient:
    return client(job)


def act(web: TestClient, action: str, code: int = 200, **values: Any) -> dict[str, Any]:
    answer = web.post("/lora-trainer/runs", json={"action": action, **values})
    assert answer.status_code == code, answer.text
    return dict(answer.json())


def test_a_saved_file_is_used_and_two_are_compared(
    web: TestClient, job: Job, values: dict[str, Any], tmp_path: Path
) -> None:
    values["config"] |= {"save_every_n_steps": 2}
    web.post("/lora-trainer/train", json={**values, "test": True})
    job.wait(120)
    assert job.status()["state"] == "done", job.status()["error"]
    choices = [row["side"] for row in web.get("/lora-trainer/compare").json()["choices"]]
    assert set(choices) == {"zork/zork.safetensors", "zork/zork-step00000002.safetensors"}
    found = web.get("/lora-trainer/compare", params={"one": choices[0], "two": choices[1]}).json()
    assert found["pairs"] and found["votes"] == {"one": 0, "two": 0, "neither": 0}
    for which in ("one", "two"):
        assert web.get(found["pairs"][0][which]).headers["content-type"] == "image/png"
    body = {"one": choices[0], "two": choices[1], "winner": "two", "blind": True}
    assert web.post("/lora-trainer/compare", json=body).json()["votes"] == {"one": 0, "two": 1, "neither": 0}
    assert web.get("/lora-trainer/compare", params={"one": "x", "two": choices[0]}).status_code == 404
    assert web.post("/lora-trainer/compare", json={**body, "winner": 3}).status_code == 400
    saved = (tmp_path / "loras/zork-step00000002.safetensors").read_bytes()
    assert "now" in act(web, "use", name="zork", file="zork-step00000002")["message"]
    assert (tmp_path / "loras/zork.safetensors").read_bytes() == saved
    assert "isn't a file of the run" in act(web, "use", 404, name="zork", file="../zork")["error"]


def queue(web: TestClient, action: str, code: int = 200, **values: Any) -> dict[str, Any]:
    answer = web.post("/lora-trainer/queue", json={"action": action, **values})
    assert answer.status_code == code, answer.text
    return dict(answer.json())


def test_a_run_from_the_list_to_its_end(
    web: TestClient, job: Job, host: OfficeHost, values: dict[str, Any], tmp_path: Path
) -> None:
    assert web.get("/lora-trainer/runs").json() == {"runs": []}
    host.act = lambda progress: job.stop() if progress.text.startswith("Step 2") else None
    values["config"] |= {"sample_every_n_steps": 1}
    web.post("/lora-trainer/train", json={**values, "trigger": "zap"})
    job.wait(60)
    host.act = lambda progress: None
    (row,) = web.get("/lora-trainer/runs").json()["runs"]
    assert (row["name"], row["state"], row["steps"], row["trigger"]) == ("zork", "stopped", 4, "zap")
    assert row["lora"] == "zork.safetensors" and row["report"] == "" and row["resumable"] and not row["offered"]
    assert row["line"].startswith(f"zork was stopped at step {row['step']} of 4, today ")
    assert web.get(row["preview"]).content.startswith(b"\x89PNG")
    found = web.get("/lora-trainer/runs/zork").json()
    assert found["settings"]["dataset"] == values["dataset"] and found["settings"]["config"]["network_dim"] == 2
    assert [point[0] for point in found["losses"]] == list(range(1, row["step"] + 1))
    assert found["saves"] == ["zork.safetensors"] and found["samples"][0]["step"] == 0 and found["log"][0]["step"] == 1
    assert web.get(found["samples"][-1]["url"]).status_code == 200 and found["prompts"] == ["zork, picture 0, big, red"]
    assert web.get(found["whole_log"]).text.count('"step": ') == row["step"] and found["learned"] == []
    curves = web.get("/lora-trainer/curve", params={"run": "zork", "width": 500}).json()
    assert all('<svg class="curve" viewBox="0 0 500 ' in curves[name] for name in ("html", "gain"))
    assert web.get("/lora-trainer/curve", params={"run": "nobody"}).status_code == 404
    assert act(web, "continue", name="zork")["job"].startswith("task(")
    job.wait(60)
    assert job.status()["state"] == "done" and job.status()["step"] == 4
    host.act = lambda progress: job.stop() if progress.text.startswith("Test image 2") else None
    assert act(web, "test", name="zork")["job"]
    job.wait(60)
    host.act = lambda progress: None
    made = len(job.status()["tests"])
    (row,) = web.get("/lora-trainer/runs").json()["runs"]
    assert "continue_test" in row["actions"] and row["half_tested"]
    assert 'data-act="continue_test">Continue the test' in web.get("/lora-trainer/shown/zork").json()["html"]
    assert act(web, "continue_test", name="zork")["job"]
    job.wait(60)
    assert job.status()["state"] == "done" and len(job.status()["tests"]) > made
    assert "continue_test" not in web.get("/lora-trainer/shown/zork").json()["html"]
    assert "no unfinished test of zork" in act(web, "continue_test", 404, name="zork")["error"]
    (row,) = web.get("/lora-trainer/runs").json()["runs"]
    assert row["state"] == "done" and row["verdict"] and web.get(row["report"]).status_code == 200
    assert set(row["actions"]) == {"test", "report", "settings", "use", "delete"}
    message = act(web, "delete", name="zork")["message"]
    assert "of the run zork deleted" in message and (tmp_path / "loras/zork.safetensors").is_file()
    assert web.get("/lora-trainer/runs").json() == {"runs": []}


def test_delete_with_the_lora_and_forget(
    web: TestClient, job: Job, host: OfficeHost, values: dict[str, Any], tmp_path: Path
) -> None:
    values["config"]["max_train_steps"] = 500
    reached = threading.Event()
    host.act = lambda progress: reached.set() if progress.text.startswith("Step 3") else None
    web.post("/lora-trainer/train", json=values)
    assert reached.wait(60)
    assert "in progress; stop it first" in act(web, "delete", 409, name="zork")["error"]
    job.close()
    (row,) = web.get("/lora-trainer/runs").json()["runs"]
    assert row["offered"] and "forget" in row["actions"]
    assert "isn't offered any more" in act(web, "forget", name="zork")["message"]
    (row,) = web.get("/lora-trainer/runs").json()["runs"]
    assert not row["offered"] and row["resumable"]
    assert "zork.safetensors" in act(web, "delete", name="zork", keep_lora=False)["message"]
    assert not list((tmp_path / "loras").glob("zork*"))


def test_a_run_that_is_being_tested_is_not_deleted(
    web: TestClient, job: Job, host: OfficeHost, values: dict[str, Any]
) -> None:
    web.post("/lora-trainer/train", json=values)
    job.wait(60)
    go = threading.Event()
    host.act = lambda progress: (go.wait(20), None)[1]
    act(web, "test", name="zork")
    assert "in progress" in act(web, "delete", 409, name="zork")["error"]
    go.set()


def test_a_continued_run_is_for_its_checkpoint(
    web: TestClient, job: Job, host: OfficeHost, values: dict[str, Any]
) -> None:
    from dataclasses import replace

    host.act = lambda progress: job.stop() if progress.text.startswith("Step 2") else None
    web.post("/lora-trainer/train", json=values)
    job.wait(60)
    host.act = lambda progress: None
    host.model.info = replace(host.model.info, checkpoint="other.safetensors")
    act(web, "continue", name="zork")
    job.wait(60)
    assert job.status()["error"] == (
        "zork is for tiny.safetensors, but other.safetensors is loaded. Load tiny.safetensors, then start it again."
    )


def test_the_queue(web: TestClient, job: Job, host: OfficeHost, values: dict[str, Any]) -> None:
    empty = {"entries": [], "held": False, "running": None}
    assert web.get("/lora-trainer/queue").json() == empty
    for name in ("a", "b", "c"):
        queue(web, "add", **{**values, "name": name})
    assert [row["id"] for row in queue(web, "move", id=3, to=1)["entries"]] == [3, 1, 2]
    assert [row["id"] for row in queue(web, "remove", id=2)["entries"]] == [3, 1]
    assert queue(web, "edit", id=1, trigger="zap")["entries"][1]["trigger"] == "zap"
    assert queue(web, "hold")["held"] and web.get("/lora-trainer/status").json()["queue"] == 2
    assert not queue(web, "start")["held"]
    job.line.wait(60)
    found = web.get("/lora-trainer/queue").json()
    assert [(row["name"], row["state"]) for row in found["entries"]] == [("c", "done"), ("a", "done")]


def test_a_run_is_queued_to_be_continued(web: TestClient, job: Job, host: OfficeHost, values: dict[str, Any]) -> None:
    host.act = lambda progress: job.stop() if progress.text.startswith("Step 2") else None
    web.post("/lora-trainer/train", json=values)
    job.wait(60)
    host.act = lambda progress: None
    (row,) = queue(web, "add", name="zork", resume=True)["entries"]
    assert row["dataset"] == values["dataset"] and row["config"]["network_dim"] == 2 and row["resume"]
    queue(web, "start")
    job.line.wait(60)
    assert web.get("/lora-trainer/queue").json()["entries"][0]["state"] == "done" and job.status()["step"] == 4


def test_a_busy_start_offers_the_queue(web: TestClient, job: Job, host: OfficeHost, values: dict[str, Any]) -> None:
    go = threading.Event()
    host.act = lambda progress: (go.wait(20), None)[1]
    web.post("/lora-trainer/train", json=values)
    answer = web.post("/lora-trainer/train", json={**values, "name": "b"})
    assert answer.status_code == 409 and answer.json()["choices"] == ["queue"]
    go.set()


@pytest.mark.parametrize(
    ("path", "body", "code", "words"),
    [
        ("runs", {"action": "dance", "name": "x"}, 400, "one of continue, continue_test, test, use, delete, forget"),
        ("runs", {"action": "delete"}, 400, "name is missing"), ("runs", {}, 400, "action can't be None"),
        ("runs", {"action": "delete", "name": "../x"}, 404, "no run named"),
        ("runs", {"action": "delete", "name": "x", "force": True}, 400, "force"),
        ("runs", {"action": ["x"], "name": "x"}, 400, "action can't be"),
        ("queue", {"action": "add"}, 400, "name is missing"), ("queue", {"action": "edit", "id": "1"}, 400, "id can't"),
        ("queue", {"action": "remove", "id": 1}, 400, "no entry 1"), ("queue", {"action": "hold", "id": 1}, 400, "id"),
        ("queue", {"action": "move", "id": True, "to": 1}, 400, "id can't be True"),
    ],
)  # fmt: skip
def test_wrong_requests(web: TestClient, path: str, body: dict[str, Any], code: int, words: str) -> None:
    answer = web.post(f"/lora-trainer/{path}", json=body)
    assert answer.status_code == code and words in answer.json()["error"], answer.text


def test_a_damaged_queue_is_said_and_the_rest_goes_on(web: TestClient, job: Job) -> None:
    job.output.mkdir()
    (job.output / "queue.json").write_text("{")
    assert "queue.json isn't valid JSON" in web.get("/lora-trainer/queue").json()["error"]
    assert web.get("/lora-trainer/status").json()["queue"] == 0
    assert web.get("/lora-trainer/runs").status_code == 200


def test_they_are_guarded_as_all_routes_are(job: Job) -> None:
    web = client(job, Access(users={"ann": "x"}))
    for path in ("runs", "runs/zork", "queue"):
        assert web.get(f"/lora-trainer/{path}").status_code == 401
    for path in ("runs", "queue"):
        assert web.post(f"/lora-trainer/{path}", json={"action": "start"}).status_code == 401
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}):
        assert client(job).post("/lora-trainer/queue", json={"action": "start"}, headers=headers).status_code == 403
    assert client(job).post("/lora-trainer/queue", content="{}").status_code == 415
