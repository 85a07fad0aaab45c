"""Names of LoRAs: compared with what is in the folder, never made into paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_trainer.errors import FileError
from lora_trainer.lora_folder import check_inside, find_lora


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "Lora" / "sub").mkdir(parents=True)
    for name in ("Lora/fox", "Lora/sub/cat", "Lora/sub/fox", "Lora/[a]*", "outside", "Lora/v1.5"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"")
    return tmp_path / "Lora"


@pytest.mark.parametrize(
    ("name", "found"),
    [("fox", "fox"), ("cat", "sub/cat"), ("[a]*", "[a]*"), ("v1.5", "v1.5"), ("fox.safetensors", "fox")],
)  # fmt: skip
def test_by_name_in_the_folder_or_below(folder: Path, name: str, found: str) -> None:
    assert find_lora(name, folder) == folder / f"{found}.safetensors"


@pytest.mark.parametrize(
    "name",
    [
        "../outside", "..\\outside", "sub/../../outside", "*", "f?x", "", ".", "..", "x" * 5000, "a\0b", "\ud800",
        "outside", "sub/cat",
    ],
)  # fmt: skip
def test_nothing_leads_out_of_it(folder: Path, name: str) -> None:
    with pytest.raises(FileError, match="no LoRA named") as refusal:
        find_lora(name, folder)
    assert len(str(refusal.value)) < 300 + len(str(folder))
    for absolute in (folder.parent / "outside", folder / "fox"):
        with pytest.raises(FileError):
            find_lora(str(absolute), folder)


def test_near_names_are_told(folder: Path) -> None:
    with pytest.raises(FileError, match="did you mean fox"):
        find_lora("fix", folder)


def test_files_by_path(folder: Path) -> None:
    assert check_inside(folder / "sub" / "cat.safetensors", folder).is_file()
    for path, words in ((folder.parent / "outside.safetensors", "isn't in"), (folder / "no.safetensors", "exist")):
        with pytest.raises(FileError, match=words):
            check_inside(path, folder)
    (folder / "link.safetensors").symlink_to(folder.parent / "outside.safetensors")
    with pytest.raises(FileError, match="isn't in"):
        check_inside(folder / "link.safetensors", folder)
