"""The HTTP interface around a job that needs no model."""

from __future__ import annotations

import base64
import threading
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from lora_trainer.errors import ConfigError, FileError, HostBusyError
from lora_trainer.ui import routes
from lora_trainer.ui.routes import add_routes, run_file


class FakeJob:
    """Answers like a job; ``error`` is raised by what begins something."""

    def __init__(self, output: Path) -> None:
        self.output, self.error, self.asked = output, None, []
        self.held = threading.Event()

    def status(self) -> dict[str, Any]:
        return {"state": "idle"}

    def start(self, values: dict[str, Any]) -> str:
        self.asked.append(values)
        if self.error is not None:
            raise self.error
        return "task(1)"

    def test(self, values: dict[str, Any]) -> str:
        return self.start(values)

    def check(self, dataset: str, config: dict[str, Any] | None = None) -> dict[str, Any]:
        self.held.wait(10)
        return {"images": 3, "path": dataset}

    def stop(self) -> bool:
        return True

    pause = resume = stop


@pytest.fixture
def job(tmp_path: Path) -> FakeJob:
    folder = tmp_path / "runs" / "zork"
    (folder / "samples").mkdir(parents=True)
    (folder / "report.json").write_text('{"verdict": "good"}')
    (folder / "report.html").write_text("<!doctype html><p>fine</p>")
    (folder / "samples" / "a b.png").write_bytes(b"\x89PNG")
    (folder / "state.pt").write_bytes(b"secret")
    (tmp_path / "runs" / "secret.json").write_text("{}")
    (tmp_path / "secret.json").write_text("{}")
    return FakeJob(tmp_path / "runs")


def client(job: FakeJob, auth: dict[str, str] | None = None) -> TestClient:
    app = FastAPI()
    add_routes(app, job, auth=auth)  # type: ignore[arg-type]
    return TestClient(app)


def test_every_route(job: FakeJob) -> None:
    web = client(job)
    assert web.get("/lora-trainer/status").json() == {"state": "idle"}
    assert web.post("/lora-trainer/train", json={"name": "zork"}).json() == {"job": "task(1)"}
    assert web.post("/lora-trainer/test", json={"lora": "zork"}).json() == {"job": "task(1)"}
    assert job.asked == [{"name": "zork"}, {"lora": "zork"}]
    for what in ("stop", "pause", "resume"):
        assert web.post(f"/lora-trainer/{what}").json() == {
            {"stop": "stopped", "pause": "paused", "resume": "resumed"}[what]: True
        }
        assert web.get(f"/lora-trainer/{what}").status_code == 405
    job.held.set()
    assert web.post("/lora-trainer/check", json={"dataset": "/x"}).json() == {"images": 3, "path": "/x"}
    assert web.get("/lora-trainer/report/zork").json() == {"verdict": "good"}
    assert "fine" in web.get("/lora-trainer/report/zork/report.html").text
    assert web.get("/lora-trainer/report/zork/samples/a%20b.png").content == b"\x89PNG"


@pytest.mark.parametrize(
    ("error", "code"), [(HostBusyError("busy"), 409), (ConfigError("wrong"), 400), (FileError("none"), 404)]
)
def test_errors_are_json(job: FakeJob, error: Exception, code: int) -> None:
    job.error = error
    answer = client(job).post("/lora-trainer/train", json={})
    assert answer.status_code == code and answer.json() == {"error": str(error)}


def test_bodies_that_are_none(job: FakeJob) -> None:
    web = client(job)
    for content in (b"{", b"[1]", b"\xff"):
        answer = web.post("/lora-trainer/train", content=content)
        assert answer.status_code == 400 and "JSON" in answer.json()["error"]
    job.error = ZeroDivisionError("oops")
    answer = web.post("/lora-trainer/train", json={})
    assert answer.status_code == 500 and "ZeroDivisionError" in answer.json()["error"]


def test_other_web_pages_are_kept_out(job: FakeJob) -> None:
    web = client(job)
    answer = web.post("/lora-trainer/stop", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert web.post("/lora-trainer/stop", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200


def basic(text: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


def test_passwords(job: FakeJob) -> None:
    web = client(job, {"ann": "pass:word", "bob": ""})
    for path in ("/lora-trainer/status", "/lora-trainer/report/zork", "/lora-trainer/report/zork/report.html"):
        answer = web.get(path)
        assert answer.status_code == 401 and "Basic" in answer.headers["WWW-Authenticate"]
        assert web.get(path, headers=basic("ann:pass:word")).status_code == 200
        assert web.get(path, headers={"X-Lora-Trainer-Key": routes.PAGE_KEY}).status_code == 200
        assert client(job, {}).get(f"{path}?key={routes.PAGE_KEY}").status_code == 200
    with client(job, {"ann": "x"}) as page:
        assert page.get(f"/lora-trainer/report/zork/report.html?key={routes.PAGE_KEY}").status_code == 200
        assert page.get("/lora-trainer/report/zork/samples/a%20b.png").status_code == 200, "by its cookie"
        assert "strict" in page.get(f"/lora-trainer/status?key={routes.PAGE_KEY}").headers["set-cookie"].lower()
    assert "set-cookie" not in client(job).get(f"/lora-trainer/status?key={routes.PAGE_KEY}").headers
    wrong: list[dict[str, str | bytes]] = [
        basic("ann:pass"), basic("eve:"), basic("ann"), {"Authorization": "Basic %%%"}, {"Authorization": "Bearer x"},
        {"X-Lora-Trainer-Key": ""}, {"X-Lora-Trainer-Key": "é".encode()},
    ]  # fmt: skip
    for headers in wrong:
        assert web.get("/lora-trainer/status", headers=headers).status_code == 401, headers
    assert client(job, {}).get("/lora-trainer/status").status_code == 401, "a page with a login and no API users"


def test_only_who_follows_a_link_is_asked_for_a_password(job: FakeJob) -> None:
    """A browser that shows its login dialog for a page's own request holds back everything else of that page."""
    web = client(job, {"ann": "x"})
    assert "WWW-Authenticate" in web.get("/lora-trainer/status").headers, "programs"
    assert "WWW-Authenticate" in web.get("/lora-trainer/status", headers={"Sec-Fetch-Mode": "navigate"}).headers
    pages = ({"X-Lora-Trainer-Key": "old"}, {"Sec-Fetch-Mode": "cors"}, {"Sec-Fetch-Mode": "no-cors"},
             {"Origin": "http://testserver"})  # fmt: skip
    for headers in pages:
        answer = web.get("/lora-trainer/status", headers=headers)
        assert answer.status_code == 401 and "WWW-Authenticate" not in answer.headers, headers
    assert "reload" in web.get("/lora-trainer/status?key=old").json()["error"]
    answered = web.get("/lora-trainer/status", headers={"X-Lora-Trainer-Key": routes.PAGE_KEY})
    assert answered.headers["x-lora-trainer-guarded"] == "1"
    assert "x-lora-trainer-guarded" not in client(job).get("/lora-trainer/status").headers


@pytest.mark.parametrize(
    "path",
    [
        "zork/state.pt", "zork/../secret.json", "zork/%2e%2e/secret.json", "zork/..%2fsecret.json",
        "%2e%2e/secret.json",
        "..%2fsecret.json", "zork/..%5csecret.json", "nobody", "zork/samples", "zork//etc/passwd", "zork/a%00.png",
        "runs", ".", "%2e",
    ],
)  # fmt: skip
def test_nothing_but_the_runs_own_files(job: FakeJob, path: str) -> None:
    answer = client(job).get(f"/lora-trainer/report/{path}")
    assert answer.status_code == 404 and b"secret" not in answer.content.replace(b"secret.json", b"")


def test_links_out_of_the_run_are_not_followed(job: FakeJob, tmp_path: Path) -> None:
    (job.output / "zork" / "link.json").symlink_to(tmp_path / "secret.json")
    (job.output / "linked").symlink_to(tmp_path)
    for name, path in (("zork", "link.json"), ("linked", "secret.json"), ("", "secret.json"), ("..", "secret.json")):
        with pytest.raises(FileError):
            run_file(job.output, name, path)
    assert run_file(job.output, "zork", "report.json").is_file()


def test_status_answers_while_a_check_runs(job: FakeJob) -> None:
    with client(job) as web:
        check = threading.Thread(target=lambda: web.post("/lora-trainer/check", json={"dataset": "/x"}))
        check.start()
        try:
            assert web.get("/lora-trainer/status").json() == {"state": "idle"}
            assert check.is_alive()
        finally:
            job.held.set()
            check.join()
