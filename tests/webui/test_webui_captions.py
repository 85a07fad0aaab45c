"""The WebUI's own captioners inside it: its BLIP and DeepBooru classes, with small random weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.webui.server import WebUI

pytestmark = pytest.mark.slow


def test_captions_by_the_webuis_own_captioners(webui: WebUI, dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(dataset, folder)
    for text in folder.rglob("*.txt"):
        text.unlink()
    found = {row["name"]: row for row in webui.get("/lora-trainer/captioners")["captioners"]}
    if webui.kind.name != "a1111":  # the small weights are of A1111's classes
        assert bool(found["blip"]["problem"]), found
        return
    code, answer = webui.call("POST", "/lora-trainer/caption", {"dataset": str(folder), "captioner": "blip"})
    assert code == 404 and "Its model isn't there yet" in answer["error"] and found["blip"]["problem"], answer
    before = webui.probe("checksum")
    webui.probe("small_captioners")
    for captioner, begins in (("blip", "zorb, "), ("deepbooru", "zorb, ")):
        webui.post("/lora-trainer/caption", {"dataset": str(folder), "captioner": captioner, "threshold": 0,
                                             "existing": "replace", "subject": "character"})  # fmt: skip
        status = webui.finished()
        assert status["state"] == "done" and "4 captions written" in status["message"], status
        texts = {path.read_text() for path in folder.rglob("*.txt")}
        assert len(list(folder.rglob("*.txt"))) == 4 and all(text.startswith(begins) for text in texts), texts
        assert captioner == "blip" or texts == {"zorb, red ball"}, "its long hair belongs to the character"
    assert webui.probe("captioners") == {"blip": "cpu", "clip": False, "booru": "cpu"}
    assert webui.probe("checksum") == before
    webui.picture("a red circle")
