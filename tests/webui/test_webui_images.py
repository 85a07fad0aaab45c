"""Images of a dataset in a real WebUI: prepared, cropped with its OpenCV, seen as training sees them, put right."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from tests.labelled.pictures import photographs
from tests.webui.server import WebUI

pytestmark = pytest.mark.slow


def test_images_are_prepared_cropped_previewed_and_put_right(webui: WebUI, tmp_path: Path) -> None:
    known = photographs(None)
    for name in ("astronaut.png", "coffee.png"):
        known[f"skimage/{name}"].save(tmp_path / name)
    made = webui.post("/lora-trainer/prepare", {"source": str(tmp_path), "trigger": "zwx", "subject": "object"})
    (folder,) = Path(made["dataset"]).iterdir()
    about = {"dataset": made["dataset"], "id": f"{folder.name}/astronaut.png"}
    left, top, right, bottom = webui.post("/lora-trainer/crop", about)["suggested"]
    assert top < 0.13 and bottom > 0.9, "the face, which the WebUI's OpenCV finds, stays whole"
    cut = webui.post("/lora-trainer/crop", {**about, "action": "set", "box": [left, top, right, bottom]})
    with Image.open(folder / "astronaut.png") as image:
        assert image.width < 512 and cut["crop"] == [left, top, right, bottom]
    seen = webui.post("/lora-trainer/preview", {**about, "config": {"resolution": "256,256", "flip_aug": True}})
    assert [use["caption"] for use in seen["uses"]] == ["zwx"] * 4
    webui.post("/lora-trainer/crop", {**about, "action": "undo"})
    assert (folder / "astronaut.png").read_bytes() == (tmp_path / "astronaut.png").read_bytes()
    buffer = io.BytesIO()
    known["skimage/coffee.png"].resize((300, 200)).save(buffer, "JPEG")
    (folder / "again.jpg").write_bytes(buffer.getvalue())
    done = webui.post("/lora-trainer/remedies", {"dataset": made["dataset"], "action": "apply"})
    assert done["done"] == "1 file set aside (again.jpg)" and not (folder / "again.jpg").exists()
    webui.post("/lora-trainer/remedies", {"dataset": made["dataset"], "action": "undo"})
    assert (folder / "again.jpg").read_bytes() == buffer.getvalue()
