"""Requests to the routes, and the headers that they come with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from lora_trainer.config import OPTIONS
from lora_trainer.evaluation.plan import read_plan
from lora_trainer.ui.access import PAGE_KEY, Access, check_page, read_hosts
from lora_trainer.ui.job import Job
from lora_trainer.ui.request import TEST_KEYS, TRAIN_KEYS
from lora_trainer.ui.routes import add_routes
from lora_trainer.ui.run_routes import QUEUE_ACTIONS, RUN_ACTIONS
from tests.support.hostile import contents, objects, only_sentences, texts, written
from tests.support.tiny_host import TinyHost


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def web(folder: Path) -> TestClient:
    host = TinyHost(folder / "loras")
    app = FastAPI()
    add_routes(app, Job(lambda: host, lambda: folder / "out"))  # type: ignore[arg-type, return-value]
    return TestClient(app, base_url="http://127.0.0.1:7860", raise_server_exceptions=False)


bodies = st.one_of(
    contents(*TRAIN_KEYS, *TEST_KEYS),
    st.builds(
        lambda most, config: {"name": "x", "dataset": "/nowhere", **most, "config": config},
        objects(*TRAIN_KEYS),
        st.one_of(objects(*OPTIONS), st.just(None)),
    ).map(written),
)


@given(st.sampled_from(["train", "test", "check", "stop", "pause", "resume"]), bodies)
def test_bodies(web: TestClient, route: str, body: bytes) -> None:
    headers = {"Content-Type": "application/json", "X-Lora-Trainer-Key": PAGE_KEY}
    answer = web.post(f"/lora-trainer/{route}", content=body, headers=headers)
    assert answer.status_code in ((200,) if route in ("stop", "pause", "resume") else (400, 404)), answer.text[:500]
    assert len(answer.text) < 1600 and isinstance(answer.json(), dict)


actions = st.one_of(
    contents("action", "name", "id", "to", "keep_lora", "file", *TRAIN_KEYS),
    st.builds(
        lambda action, rest: {**rest, "action": action},
        st.sampled_from([*RUN_ACTIONS, *QUEUE_ACTIONS]),
        objects("name", "id", "to", "keep_lora", "file", *TRAIN_KEYS),
    ).map(written),
)


@given(st.sampled_from(["runs", "queue"]), actions)
def test_actions(web: TestClient, route: str, body: bytes) -> None:
    headers = {"Content-Type": "application/json", "X-Lora-Trainer-Key": PAGE_KEY}
    answer = web.post(f"/lora-trainer/{route}", content=body, headers=headers)
    assert answer.status_code in ((200, 400, 404) if route == "queue" else (400, 404)), answer.text[:500]
    assert len(answer.text) < 1600 and isinstance(answer.json(), dict)


@given(contents("one", "two", "winner", "blind", "prompt"))
def test_votes(web: TestClient, body: bytes) -> None:
    headers = {"Content-Type": "application/json", "X-Lora-Trainer-Key": PAGE_KEY}
    answer = web.post("/lora-trainer/compare", content=body, headers=headers)
    assert answer.status_code in (400, 404) and len(answer.text) < 1600, answer.text[:500]


@given(texts.map(lambda text: text.encode("utf-8", "replace").decode()))
def test_names_of_runs(web: TestClient, name: str) -> None:
    from urllib.parse import quote

    answer = web.get(f"/lora-trainer/runs/{quote(name, safe='')}")
    known = (404, 405) if name.strip("/.") else (200, 404, 405)  # the client takes "." and "/" for the folder itself
    assert answer.status_code in known, answer.text[:500]


@given(st.lists(texts.map(lambda text: text.encode("utf-8", "replace").decode()), max_size=3).map("/".join))
def test_addresses(web: TestClient, path: str) -> None:
    from urllib.parse import quote

    answer = web.get(f"/lora-trainer/report/{quote(path)}")
    assert answer.status_code in (404, 405), answer.text[:500]


@given(objects(*TEST_KEYS))
def test_plans(folder: Path, values: dict[str, Any]) -> None:
    lora = folder / "fox.safetensors"
    lora.write_bytes((2).to_bytes(8, "little") + b"{}")
    with only_sentences():
        read_plan(lora, values)


NAMES = ("host", "origin", "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest", "authorization")


@given(st.dictionaries(st.sampled_from(NAMES), texts, max_size=6), texts, st.booleans())
def test_headers(headers: dict[str, str], hosts: str, reads: bool) -> None:
    with only_sentences():
        check_page(Access(hosts=read_hosts(hosts), users={"ann": "x"}), headers, reads=reads)
