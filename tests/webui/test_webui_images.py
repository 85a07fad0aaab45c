"""Images of a dataset in a real WebUI: prepared, cropped with its OpenCV, seen as training sees them, put right; and
regularisation images that its model makes."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open

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


def test_regularisation_images_are_made_kept_and_trained_with(webui: WebUI, dataset: Path) -> None:
    before, picture = webui.probe("checksum"), webui.picture("a red circle")
    condition = webui.probe("condition")
    options, history = webui.get("/sdapi/v1/options"), (webui.data / "params.txt").read_text()
    asked = {"dataset": str(dataset), "class": "circle", "images": 3}
    folder = Path(webui.post("/lora-trainer/regularise", asked)["folder"])
    status = webui.finished()
    assert status["state"] == "done" and "3 regularisation images of “circle” in " in status["message"], status
    made = {path.name: path.read_bytes() for path in (folder / "1_circle").iterdir()}
    assert sorted(made) == [f"000{number}.{ending}" for number in (1, 2, 3) for ending in ("png", "txt")]
    prompts = {made[f"000{number}.txt"].decode() for number in (1, 2, 3)}
    assert len(prompts) == 3 and all("circle" in prompt for prompt in prompts)
    assert webui.probe("checksum") == before and webui.probe("condition") == condition
    assert webui.get("/sdapi/v1/options") == options and (webui.data / "params.txt").read_text() == history
    assert webui.picture("a red circle").tobytes() == picture.tobytes()
    condition = webui.probe("condition")
    webui.post("/lora-trainer/regularise", {**asked, "images": 4})
    assert "4 regularisation images" in webui.finished()["message"]
    assert {name: (folder / "1_circle" / name).read_bytes() for name in made} == made, "what is there stays"
    status = webui.train("held", dataset, config={"reg_data_dir": str(folder), "max_train_steps": 4})
    assert status["state"] == "done" and status["step"] == 4, status
    with safe_open(webui.data / "models" / "Lora" / "held.safetensors", "pt") as file:
        about = file.metadata()
    assert int(about["ss_num_reg_images"]) == 8, "four images, as often as the subject's are used"
    assert webui.probe("checksum") == before and webui.probe("condition") == condition
