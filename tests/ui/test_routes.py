"""The HTTP interface around a job that needs no model."""

from __future__ import annotations

import base64
import hashlib
import io
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from lora_trainer.errors import ConfigError, FileError, HostBusyError, NameTakenError
from lora_trainer.evaluation.html import COPY_SCRIPT
from lora_trainer.ui import routes
from lora_trainer.ui.access import Access, read_hosts
from lora_trainer.ui.answers import LARGEST_BODY
from lora_trainer.ui.looking import Looking
from lora_trainer.ui.routes import add_routes, run_file


class FakeJob:
    """Answers like a job; ``error`` is raised by what begins something."""

    def __init__(self, output: Path) -> None:
        self.looking = Looking()
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

    def check(self, values: dict[str, Any]) -> dict[str, Any]:
        self.held.wait(10)
        return {"images": 3, "path": values["dataset"]}

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


ADDRESS = "http://127.0.0.1:7860"


def client(job: FakeJob, access: Access | None = None, address: str = ADDRESS) -> TestClient:
    app = FastAPI()
    add_routes(app, job, lambda: access or Access())  # type: ignore[arg-type]
    return TestClient(app, base_url=ADDRESS, headers={"Host": address.partition("://")[2]})


def test_every_route(job: FakeJob) -> None:
    web = client(job)
    assert web.get("/lora-trainer/status").json() == {"state": "idle"}
    assert web.post("/lora-trainer/train", json={"name": "zork"}).json() == {"job": "task(1)"}
    assert web.post("/lora-trainer/test", json={"lora": "zork"}).json() == {"job": "task(1)"}
    assert job.asked == [{"name": "zork"}, {"lora": "zork"}]
    for what in ("stop", "pause", "resume"):
        assert web.post(f"/lora-trainer/{what}", json={}).json() == {
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


def test_a_taken_name_names_the_choices(job: FakeJob) -> None:
    job.error = NameTakenError("A run of that name is there.", ("resume", "overwrite"))
    answer = client(job).post("/lora-trainer/train", json={})
    expected = {"error": "A run of that name is there.", "choices": ["resume", "overwrite"]}
    assert answer.status_code == 409 and answer.json() == expected


def test_bodies_that_are_none(job: FakeJob) -> None:
    web = client(job)
    kind = {"Content-Type": "application/json; charset=utf-8"}
    hostile = (b"{", b"[1]", b"\xff", b"[" * 100_000, b'{"name": ' + b"9" * 5000 + b"}", b'{"name": "\\ud800"}')
    for content in hostile:
        answer = web.post("/lora-trainer/train", content=content, headers=kind)
        assert answer.status_code == 400 and len(answer.json()["error"]) < 200, content[:20]
    assert web.post("/lora-trainer/train", content=b" " * (LARGEST_BODY + 1), headers=kind).status_code == 413
    job.error = ZeroDivisionError("oops")
    answer = web.post("/lora-trainer/train", json={})
    assert answer.status_code == 500 and "ZeroDivisionError" in answer.json()["error"]


KEY = {"X-Lora-Trainer-Key": routes.PAGE_KEY}


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_web_pages_are_kept_out(job: FakeJob, site: str) -> None:
    web = client(job)
    for path in ("/lora-trainer/stop", "/lora-trainer/train"):
        assert web.post(path, json={}, headers={"Sec-Fetch-Site": site, **KEY}).status_code == 403
        assert web.post(path, json={}, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200
    picture = "/lora-trainer/report/zork/samples/a%20b.png"
    assert web.get(picture, headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"}).status_code == 403
    link = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert web.get("/lora-trainer/report/zork/report.html", headers=link).status_code == 200, "a link in a message"
    assert web.post("/lora-trainer/stop", json={}, headers={**link, **KEY}).status_code == 403, "a form"


def test_only_json_is_taken(job: FakeJob) -> None:
    web = client(job)
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        answer = web.post("/lora-trainer/train", content=b"{}", headers={"Content-Type": kind})
        assert answer.status_code == 415 and "application/json" in answer.json()["error"]
    assert web.post("/lora-trainer/stop").status_code == 415
    assert job.asked == []


@pytest.mark.parametrize(
    ("origin", "code"),
    [
        (ADDRESS, 200), ("http://127.0.0.1:8000", 403), ("https://127.0.0.1:7860", 200), ("http://nas:7860", 403),
        ("null", 403), ("https://evil.example", 403), ("chrome-extension://abc", 403), ("", 403),
        ("https://ai.example.com", 200), ("https://ai.example.com:8443", 403), ("http://lan.example:81", 200),
        ("http://lan.example", 403), ("http://[::1", 403), ("http://127.0.0.1:7860.evil.example", 403),
    ],
)  # fmt: skip
def test_where_a_page_may_come_from(job: FakeJob, origin: str, code: int) -> None:
    web = client(job, Access(hosts=read_hosts("https://AI.example.com/, lan.example:81")))
    assert web.post("/lora-trainer/stop", json={}, headers={"Origin": origin, **KEY}).status_code == code
    assert web.get("/lora-trainer/status", headers={"Origin": origin, **KEY}).status_code == code
    assert web.post("/lora-trainer/stop", json={}, headers={"Origin": origin}).status_code == 403, "without the key"
    old = web.post("/lora-trainer/stop", json={}, headers={"Origin": origin, "X-Lora-Trainer-Key": "old"})
    assert old.status_code in (401, 403), "with the key of another process"


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("http://localhost:7860", 200), ("http://webui.localhost", 200), ("http://192.168.1.20:7860", 200),
        ("http://[::1]:7860", 200), (f"http://{socket.gethostname()}:7860", 200),
        (f"http://{socket.gethostname()}.local", 200), ("http://rebound.example:7860", 403),
        ("http://127.0.0.1.nip.example:7860", 403), ("http://ai.example.com", 200), ("http://lan.example:81", 200),
        ("http://lan.example:82", 403),
    ],
)  # fmt: skip
def test_names_that_somebody_points_at_this_machine(job: FakeJob, address: str, code: int) -> None:
    """A rebound page is of one origin with ours and can read the key: only the name tells."""
    access = Access(hosts=read_hosts("ai.example.com lan.example:81"))
    web = client(job, access, address)
    assert web.get("/lora-trainer/status").status_code == code
    assert web.post("/lora-trainer/stop", json={}, headers={"Origin": address, **KEY}).status_code == code
    behind_login = client(job, Access(login=True), address)
    assert behind_login.get("/lora-trainer/status", headers=KEY).status_code == 200, "such a page has no login"
    users = client(job, Access(users={"ann": "x"}), address)
    assert users.get("/lora-trainer/status", headers=basic("ann:x")).status_code == 200, "a program with a password"


def test_closed_to_strangers(job: FakeJob) -> None:
    """Whoever reaches the page reads its key, so that the key is worth nothing where nobody is asked for a login."""
    closed = client(job, Access(exposed=True, users={"ann": "x"}), "http://192.168.1.20:7860")
    for headers in ({}, KEY, basic("ann:y")):
        for answer in (
            closed.get("/lora-trainer/status", headers=headers),
            closed.post("/lora-trainer/stop", json={}, headers=headers),
            closed.get("/lora-trainer/report/zork/report.html", headers=headers),
        ):
            assert answer.status_code == 403 and "--gradio-auth" in answer.json()["error"]
    assert closed.get("/lora-trainer/status", headers=basic("ann:x")).status_code == 200
    for access in (Access(exposed=True, open=True), Access(exposed=True, login=True), Access(open=True), Access()):
        assert client(job, access).get("/lora-trainer/status", headers=KEY).status_code == 200


def test_what_is_served_runs_no_script_but_our_own(job: FakeJob) -> None:
    (job.output / "zork" / "other.html").write_text("<script>alert(1)</script>")
    (job.output / "zork" / "picture.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>")
    web = client(job)
    policy = web.get("/lora-trainer/report/zork/report.html").headers["content-security-policy"]
    digest = base64.b64encode(hashlib.sha256(COPY_SCRIPT.encode()).digest()).decode()
    assert "default-src 'none'" in policy and f"script-src 'sha256-{digest}';" in policy and "'self'" in policy
    assert "frame-ancestors 'self'" in policy
    for path in ("other.html", "report.json", "samples/a%20b.png"):
        answer = web.get(f"/lora-trainer/report/zork/{path}")
        policy = answer.headers["content-security-policy"]
        assert answer.status_code == 200 and "sandbox" in policy and "script-src" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert web.get("/lora-trainer/report/zork/picture.svg").status_code == 404


def basic(text: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


def test_passwords(job: FakeJob) -> None:
    web = client(job, Access(users={"ann": "pass:word", "bob": ""}))
    for path in ("/lora-trainer/status", "/lora-trainer/report/zork", "/lora-trainer/report/zork/report.html"):
        answer = web.get(path)
        assert answer.status_code == 401 and "Basic" in answer.headers["WWW-Authenticate"]
        assert web.get(path, headers=basic("ann:pass:word")).status_code == 200
        assert web.get(path, headers={"X-Lora-Trainer-Key": routes.PAGE_KEY}).status_code == 200
        assert client(job, Access(login=True)).get(f"{path}?key={routes.PAGE_KEY}").status_code == 200
    with client(job, Access(users={"ann": "x"})) as page:
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
    assert client(job, Access(login=True)).get("/lora-trainer/status").status_code == 401, (
        "a page with a login and no API users"
    )


def test_only_who_follows_a_link_is_asked_for_a_password(job: FakeJob) -> None:
    """A browser that shows its login dialog for a page's own request holds back everything else of that page."""
    web = client(job, Access(users={"ann": "x"}))
    assert "WWW-Authenticate" in web.get("/lora-trainer/status").headers, "programs"
    assert "WWW-Authenticate" in web.get("/lora-trainer/status", headers={"Sec-Fetch-Mode": "navigate"}).headers
    pages = ({"X-Lora-Trainer-Key": "old"}, {"Sec-Fetch-Mode": "cors"}, {"Sec-Fetch-Mode": "no-cors"},
             {"Origin": ADDRESS})  # fmt: skip
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


def test_photos_are_prepared(job: FakeJob, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(3):
        Image.new("RGB", (70, 64), (number, 9, 9)).save(photos / f"{number}.png")
    web = client(job)
    made = web.post("/lora-trainer/prepare", json={"source": str(photos), "trigger": "zwx", "subject": "object"}).json()
    assert (made["images"], made["repeats"], made["skipped"]) == (3, 20, [])
    assert Path(made["dataset"]) == job.output / "datasets" / "zwx"
    assert len(list((job.output / "datasets" / "zwx" / "20_zwx").glob("*.png"))) == 3
    for values, words in (({"source": str(photos)}, "trigger is missing"), ({"trigger": "x"}, "source is missing"),
                          ({"source": "/no/such", "trigger": "x"}, "doesn't exist"),
                          ({"source": str(photos), "trigger": "x", "size": 3}, "size")):  # fmt: skip
        answer = web.post("/lora-trainer/prepare", json=values)
        assert answer.status_code == 400 and words in answer.json()["error"]


def test_captions_are_shown_changed_and_taken_back(job: FakeJob, tmp_path: Path) -> None:
    folder = tmp_path / "set" / "2_zwx"
    folder.mkdir(parents=True)
    for name in ("a", "b"):
        Image.new("RGB", (600, 300), "red").save(folder / f"{name}.png")
    (folder / "a.txt").write_text("a cat")
    dataset, web = str(folder.parent), client(job)
    found = web.get("/lora-trainer/captions", params={"dataset": dataset}).json()
    assert [row["text"] for row in found["rows"]] == ["a cat", ""] and found["rows"][1]["instead"] == "zwx"
    assert (found["rows"][0]["tokens"], found["tags"], found["undo"]) == (2, [["a cat", 1]], "")

    def post(**values: Any) -> Any:
        return web.post("/lora-trainer/captions", json={"dataset": dataset, **values})

    changed = post(action="prefix", words="zwx").json()
    assert [row["text"] for row in changed["changed"]] == ["zwx, a cat", "zwx"] and "zwx" in changed["undo"]
    assert post(action="set", id="2_zwx/b.png", text="zwx, a dog", before="zwx").status_code == 200
    assert post(action="set", id="2_zwx/b.png", text="late", before="zwx").status_code == 400
    post(action="undo")
    assert post(action="undo").json()["undo"] == "" and not (folder / "b.txt").exists()
    assert post(action="undo").status_code == 404
    assert post(action="count", text="a cat " * 60, limit=75).json()["tokens"] == 120
    for values in ({"action": "x"}, {"action": "prefix"}, {"action": "prefix", "words": "x", "ids": "all"},
                   {"action": "count", "limit": 76}, {"action": "undo", "more": 1}):  # fmt: skip
        assert post(**values).status_code == 400, values
    picture = web.get("/lora-trainer/thumbnail", params={"dataset": dataset, "id": "2_zwx/a.png"})
    assert picture.headers["content-type"] == "image/jpeg"
    with Image.open(io.BytesIO(picture.content)) as image:
        assert image.size == (256, 128)
    for id in ("2_zwx/../../secret.json", "2_zwx/a.txt", ""):
        assert web.get("/lora-trainer/thumbnail", params={"dataset": dataset, "id": id}).status_code == 404
