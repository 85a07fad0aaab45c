"""The card in the WebUI: filled in, never taken away from the user."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lora_trainer.card import merge, read_activation_text, write_card
from lora_trainer.errors import FileError
from lora_trainer.evaluation.lora_file import read_trigger


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    path = tmp_path / "fox.safetensors"
    header = b'{"__metadata__":{"modelspec.trigger_phrase":"newfox"}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return path


def write(lora: Path, **values: Any) -> Any:
    return write_card(lora, **{"trigger": "foxy", "preferred_weight": 0.8, "family": "sd1", **values})


def card(lora: Path) -> dict[str, Any]:
    return json.loads(lora.with_suffix(".json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("family", "version"), [("sd1", "SD1"), ("sd2", "SD2"), ("sdxl", "SDXL")])
def test_new_card_has_what_the_webui_reads(lora: Path, family: str, version: str) -> None:
    result = write(lora, family=family, notes="10 epochs", description="A fox")
    found = card(lora)
    assert result.json == lora.with_suffix(".json") and not result.notices
    assert found["activation text"] == "foxy"
    assert found["preferred weight"] == 0.8
    assert found["sd version"] == version
    assert (found["notes"], found["description"], found["negative text"]) == ("10 epochs", "A fox", "")


def test_the_users_words_stay(lora: Path) -> None:
    mine = {"activation text": "my fox", "preferred weight": 0.6, "notes": "from Oslo", "my own key": [1, 2]}
    lora.with_suffix(".json").write_text(json.dumps(mine))
    result = write(lora, notes="10 epochs")
    found = card(lora)
    assert {key: found[key] for key in mine} == mine
    assert found["sd version"] == "SD1"
    assert sum("activation text" in line and "my fox" in line and "foxy" in line for line in result.notices) == 1


def test_fields_that_the_webuis_editor_left_empty_are_filled(lora: Path) -> None:
    empty = {"activation text": "", "preferred weight": 0.0, "sd version": "Unknown", "description": "", "notes": ""}
    lora.with_suffix(".json").write_text(json.dumps(empty))
    assert not write(lora).notices
    assert (card(lora)["activation text"], card(lora)["preferred weight"]) == ("foxy", 0.8)
    assert card(lora)["sd version"] == "SD1"


def test_our_own_values_follow_a_new_run_until_the_user_changes_one(lora: Path) -> None:
    write(lora)
    write(lora, trigger="newfox", preferred_weight=0.7)
    assert (card(lora)["activation text"], card(lora)["preferred weight"]) == ("newfox", 0.7)
    edited = card(lora) | {"preferred weight": 1.0}
    lora.with_suffix(".json").write_text(json.dumps(edited))
    write(lora, trigger="newerfox", preferred_weight=0.5)
    assert (card(lora)["activation text"], card(lora)["preferred weight"]) == ("newerfox", 1.0)
    write(lora, preferred_weight=0.4)
    assert card(lora)["preferred weight"] == 1.0


def test_user_value_equal_to_ours_makes_no_notice() -> None:
    merged, kept = merge({"notes": "same"}, {"notes": "same"})
    assert merged["notes"] == "same" and not kept


@pytest.mark.parametrize(
    "content",
    [
        "{broken", "[1, 2]", "", "[" * 50_000, '{"notes": ' + "9" * 5000 + "}", '{"activation text": {"a": 1}}',
        '{"model_list": "custom", "network_dim": 8}', '{"name": "x", "version": 1, "description": "a package"}',
        '{"activation text": "\\ud800"}',
    ],
)  # fmt: skip
def test_unreadable_card_is_left_alone(lora: Path, content: str) -> None:
    lora.with_suffix(".json").write_text(content)
    result = write(lora)
    assert lora.with_suffix(".json").read_text() == content
    assert result.json is None and "fox.json" in result.notices[0]
    assert read_activation_text(lora) == ("", "")


@pytest.mark.parametrize("content", ["{}", '{"notes": "mine"}', '{"activation text": "mine", "modelId": 5}'])
def test_what_is_a_card_is_filled_in(lora: Path, content: str) -> None:
    lora.with_suffix(".json").write_text(content)
    assert write(lora).json is not None
    found = card(lora)
    assert found["sd version"] == "SD1" and json.loads(content).items() <= found.items()


def test_preview_is_512_wide_and_carries_its_infotext(lora: Path) -> None:
    infotext = "<lora:fox:0.8> 狐, “foxy”\nSteps: 20, Seed: 1"
    result = write(lora, preview=Image.new("RGB", (64, 96), (200, 30, 30)), infotext=infotext)
    with Image.open(result.preview) as image:
        assert image.size == (512, 768) and image.format == "PNG"
        assert image.info["parameters"] == infotext
        assert image.getpixel((256, 256)) == (200, 30, 30)


def test_preview_of_ours_is_renewed(lora: Path) -> None:
    write(lora, preview=Image.new("RGB", (64, 64), (255, 0, 0)))
    write(lora, preview=Image.new("RGB", (64, 64), (0, 0, 255)))
    with Image.open(lora.with_suffix(".png")) as image:
        assert image.getpixel((0, 0)) == (0, 0, 255)


@pytest.mark.parametrize("name", ["fox.png", "fox.jpg", "fox.preview.png", "fox.webp"])
def test_preview_of_the_user_stays_the_only_one(lora: Path, name: str) -> None:
    own = lora.with_name(name)
    Image.new("RGB", (10, 10), (1, 2, 3)).save(own)
    before = own.read_bytes()
    assert write(lora, preview=Image.new("RGB", (64, 64))).preview is None
    assert own.read_bytes() == before
    assert sorted(path.name for path in lora.parent.iterdir()) == sorted(["fox.json", "fox.safetensors", name])


def test_trigger_comes_from_the_user_before_the_file_before_our_card(lora: Path) -> None:
    write(lora)
    assert read_activation_text(lora) == ("", "foxy")
    assert read_trigger(lora) == "newfox"  # the file was trained anew; the card is ours and older
    lora.with_suffix(".json").write_text(json.dumps({"activation text": "my fox"}))
    assert read_trigger(lora) == "my fox"


def test_full_disk_is_an_error_and_leaves_nothing(lora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(FileError, match=r"fox\.json.*No space left"):
        write(lora)
    assert [path.name for path in lora.parent.iterdir()] == ["fox.safetensors"]
