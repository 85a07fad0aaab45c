"""The routes for single images of a dataset, and for remedies."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image, ImageDraw

from lora_trainer.dataset.prepare import prepare
from lora_trainer.ui.access import Access
from lora_trainer.ui.image_routes import image_table
from lora_trainer.ui.remedy_routes import remedy_table
from lora_trainer.ui.routes import guarded


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset of one prepared photo."""
    image = Image.new("RGB", (800, 600), "navy")
    ImageDraw.Draw(image).ellipse((500, 100, 700, 300), fill="orange")
    (tmp_path / "photos").mkdir()
    image.save(tmp_path / "photos" / "a.jpg")
    return prepare([tmp_path / "photos"], tmp_path / "set", "zwx", 2).folder


@pytest.fixture
def web(tmp_path: Path) -> TestClient:
    app, job = FastAPI(), SimpleNamespace(output=tmp_path / "out")
    for method, path, handler in [*image_table(job), *remedy_table(job)]:  # type: ignore[arg-type]
        app.add_api_route(path, guarded(handler, Access), methods=[method], response_model=None)
    return TestClient(app, base_url="http://127.0.0.1:7860")


def test_an_image_is_previewed_cropped_and_made_whole(web: TestClient, folder: Path) -> None:
    about = {"dataset": str(folder), "id": "2_zwx/a.jpg"}
    seen = web.post("/preview", json={**about, "config": {"flip_aug": True, "resolution": "256,256"}, "uses": 3}).json()
    assert seen["size"] == [800, 600] and seen["bucket"] == [256, 192] and len(seen["uses"]) == 3
    found = web.post("/crop", json=about).json()
    assert found["crop"] is None and found["size"] == [800, 600] and [512, 512] in found["shapes"]
    left, _, right, bottom = found["suggested"]
    assert 0.5 < left < 0.63 and right < 0.97 and bottom < 0.6
    cut = web.post("/crop", json={**about, "action": "set", "box": [0.5, 0, 1, 1]}).json()
    assert cut["id"] == "2_zwx/a.png" and cut["crop"] == [0.5, 0, 1, 1] and cut["suggested"] == found["suggested"]
    picture = web.get("/picture", params={"dataset": str(folder), "id": "2_zwx/a.png"})
    assert Image.open(io.BytesIO(picture.content)).size == (1024, 768), "the whole image"
    assert web.post("/preview", json={"dataset": str(folder), "id": "2_zwx/a.png"}).json()["size"][0] < 420
    whole = web.post("/crop", json={**about, "id": cut["id"], "action": "undo"}).json()
    assert whole["id"] == about["id"] and whole["crop"] is None
    turned = web.post("/rotate", json={**about, "degrees": 90}).json()
    assert turned["size"] == [600, 800] and turned["rotation"] == 90 and turned["suggested"] != found["suggested"]
    picture = web.get("/picture", params={"dataset": str(folder), "id": turned["id"]})
    assert Image.open(io.BytesIO(picture.content)).size == (768, 1024)
    assert web.post("/preview", json={"dataset": str(folder), "id": turned["id"]}).json()["size"] == [600, 800]


def test_what_cannot_be_done_is_one_sentence(web: TestClient, folder: Path) -> None:
    about = {"dataset": str(folder), "id": "2_zwx/a.jpg"}
    for path, more, sentence in (
        ("/preview", {"uses": 99}, "uses can't be 99; give a whole number from 1 to 16."),
        ("/preview", {"id": ""}, "id is missing: give the image, as <folder>/<name>."),
        ("/preview", {"size": 3}, "'size' can't be used in preview"),
        ("/crop", {"action": "cut"}, "action can't be 'cut'; give one of show, set, undo."),
        ("/remedies", {"id": "a"}, "'id' can't be used in remedies"),
        ("/rotate", {"degrees": 45}, "degrees can't be 45; give one of 90, 180, 270."),
        ("/rotate", {"action": "set"}, "'action' can't be used in rotate"),
        ("/crop", {"action": "set"}, "box can't be None; give left, top, right and bottom as shares"),
    ):
        answer = web.post(path, json={**about, **more})
        assert answer.status_code == 400 and answer.json()["error"].startswith(sentence), answer.text
    assert web.post("/crop", json={**about, "id": "2_zwx/b.jpg"}).status_code == 404


def test_remedies_are_listed_applied_and_taken_back(web: TestClient, folder: Path) -> None:
    (folder / "2_zwx" / "broken.png").write_bytes(b"no image")
    about = {"dataset": str(folder)}
    listed = web.post("/remedies", json=about).json()
    assert listed["changes"] == ["broken.png → set-aside/broken.png"] and listed["done"] == listed["undo"] == ""
    done = web.post("/remedies", json={**about, "action": "apply", "kinds": ["unreadable"]}).json()
    assert done["done"] == done["undo"] == "1 file set aside (broken.png)"
    assert (folder / "set-aside" / "broken.png").read_bytes() == b"no image"
    back = web.post("/remedies", json={**about, "action": "undo"}).json()
    assert back["done"] == "Taken back: 1 file set aside (broken.png)" and back["undo"] == ""
    assert (folder / "2_zwx" / "broken.png").exists()
    for wrong in ({"action": "x"}, {"kinds": "blur"}, {"kinds": ["x"]}):
        assert web.post("/remedies", json={**about, **wrong}).status_code == 400
