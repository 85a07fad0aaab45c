"""A saved file becomes the LoRA: the right bytes, nothing lost, the card as its test found it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lora_trainer.cli import main
from lora_trainer.errors import FileError, HostBusyError
from lora_trainer.runs.deleting import delete_run
from lora_trainer.runs.listing import RunList
from lora_trainer.runs.using import Used, use_file
from lora_trainer.training.folder import RunFolder
from lora_trainer.training.lock import held
from tests.support.runs import run


@pytest.fixture
def place(tmp_path: Path) -> Path:
    run(tmp_path, save_every_n_epochs=1, max_train_epochs=3, measure_at_saves=False)
    return tmp_path


def use(place: Path, name: str) -> Used:
    return use_file(place / "out", RunList(place / "out", place / "loras").entry("zork"), name, place / "loras")


def files(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (place / "loras").glob("*.safetensors")}


def test_it_becomes_the_lora_and_what_it_was_is_kept(place: Path) -> None:
    before = files(place)
    used = use(place, "zork-000001")
    assert used.kept is not None and used.kept.name == "zork-was.safetensors"
    assert "zork.safetensors is zork-000001.safetensors now" in used.sentence and "zork-was" in used.sentence
    after = files(place)
    assert after.pop("zork-was.safetensors") == before["zork.safetensors"]
    assert after == {**before, "zork.safetensors": before["zork-000001.safetensors"]}


def test_it_can_be_changed_again_and_back_without_another_copy(place: Path) -> None:
    before = files(place)
    use(place, "zork-000001")
    assert use(place, "zork-000002.safetensors").kept is None, "its weights are in zork-000001 still"
    assert use(place, "zork-was").kept is None
    assert files(place) == {**before, "zork-was.safetensors": before["zork.safetensors"]}
    assert "already" in use(place, "zork-was").sentence


def test_another_copy_takes_another_name(place: Path) -> None:
    (place / "loras/zork-was.safetensors").write_bytes(b"somebody's")
    before = files(place)
    assert use(place, "zork-000001").kept == place / "loras/zork-was-2.safetensors"
    after = files(place)
    assert after["zork-was.safetensors"] == b"somebody's"
    assert after["zork-was-2.safetensors"] == before["zork.safetensors"]


def test_a_copy_that_fails_loses_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, replace, calls = files(place), Path.replace, [0]

    def full(source: Path, target: Any) -> Path:
        calls[0] += source.name.endswith(".tmp")
        if calls[0] == 2:
            raise OSError(28, "No space left on device")
        return replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(FileError, match="No space left"):
            use(place, "zork-000001")
    after = files(place)
    assert {name: after[name] for name in before} == before


def report(place: Path, **changes: Any) -> None:
    folder = place / "out/zork"
    (folder / "images").mkdir()
    rows = []
    for name, strength, colour in (("zork-000001", 0.6, "red"), ("zork-000001", 1.0, "blue"), ("zork", 1.0, "green")):
        path = f"images/{name}-{strength}.png"
        Image.new("RGB", (8, 8), colour).save(folder / path)
        rows.append({"kind": "epoch", "file": f"{name}.safetensors", "strength": strength, "path": path,
                     "seed": 1, "prompt": "zork", "infotext": f"<lora:{name}:{strength}> zork"})  # fmt: skip
    found = {
        "recommended": {"file": "zork-000001.safetensors", "strength": 0.7}, "images": rows,
        "epochs": [{"file": "zork-000001.safetensors", "strength": 0.7}, {"file": "zork.safetensors", "strength": 1.2}],
    }  # fmt: skip
    (folder / "report.json").write_text(json.dumps({**found, **changes}))


@pytest.mark.parametrize("recommended", ["zork-000001.safetensors", "zork-000002.safetensors"])
def test_the_card_gets_the_strength_and_the_picture_of_that_file(place: Path, recommended: str) -> None:
    report(place, recommended={"file": recommended, "strength": 0.7})
    use(place, "zork-000001")
    card = json.loads((place / "loras/zork.json").read_text())
    assert card["preferred weight"] == 0.7 and card["activation text"] == "zork"
    with Image.open(place / "loras/zork.png") as preview:
        assert preview.convert("RGB").getpixel((4, 4)) == (255, 0, 0)
        assert preview.info["parameters"].startswith("<lora:zork:0.6>")


def test_a_report_leads_to_no_image_elsewhere(place: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(place / "private.png")
    for path in (str(place / "private.png"), "../../private.png"):
        shutil.rmtree(place / "out/zork/images", ignore_errors=True)
        row = {"kind": "epoch", "file": "zork-000001.safetensors", "strength": 1.0, "path": path, "seed": 1,
               "prompt": "", "infotext": ""}  # fmt: skip
        report(place, images=[row])
        use(place, "zork-000001")
        assert not (place / "loras/zork.png").exists()
        use(place, "zork-was")


@pytest.mark.parametrize(
    "changes", [{"images": 3, "epochs": None, "recommended": []}, {"images": [{}], "epochs": [{}]}]
)
def test_a_damaged_report_leaves_the_strength_as_it_is(place: Path, changes: dict[str, Any]) -> None:
    report(place, **changes)
    (place / "loras/zork.json").write_text(json.dumps({"preferred weight": 0.55, "sd version": "SD1"}))
    use(place, "zork-000002")
    card = json.loads((place / "loras/zork.json").read_text())
    assert card["preferred weight"] == 0.55 and card["sd version"] == "SD1"


def test_only_files_that_the_run_wrote(place: Path, tmp_path: Path) -> None:
    run(tmp_path / "other", "zork", max_train_epochs=1, learning_rate=1e-3)
    (tmp_path / "other/loras/zork.safetensors").replace(place / "loras/zork-000009.safetensors")
    run(place, "else", max_train_epochs=1)
    before = files(place)
    for name in ("zork-000009", "else", "nothing", "../loras/zork-000001", ""):
        with pytest.raises(FileError, match="zork"):
            use(place, name)
    assert files(place) == before


def test_not_while_it_trains(place: Path) -> None:
    with held(*RunFolder(place / "out", "zork").locks(place / "loras")), pytest.raises(HostBusyError, match="zork"):
        use(place, "zork-000001")


def test_deleting_the_run_with_its_loras_takes_the_copy_along(place: Path) -> None:
    use(place, "zork-000001")
    entry = RunList(place / "out", place / "loras").entry("zork")
    delete_run(place / "out", entry, place / "loras", keep_lora=False)
    assert not list((place / "loras").glob("zork*.safetensors"))


def test_on_the_command_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "use", "zork", "zork-000001", "--output", str(place / "out")]) == 0
    assert "zork.safetensors is zork-000001.safetensors now" in capsys.readouterr().out
    assert main(["runs", "use", "zork", "zork-000007", "--output", str(place / "out")]) == 2
    assert "zork-000001.safetensors" in capsys.readouterr().err
