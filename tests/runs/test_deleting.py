"""Deleting a run: only its own files, never behind a link, never one that is in progress."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_trainer.card import write_card
from lora_trainer.errors import FileError, HostBusyError
from lora_trainer.families import SD1
from lora_trainer.network.file import write_lora
from lora_trainer.runs.deleting import Deleted, delete_run, forget_run
from lora_trainer.runs.listing import RunList
from lora_trainer.training.events import StepDone
from lora_trainer.training.folder import RunFolder
from lora_trainer.training.lock import held
from lora_trainer.training.run import train
from tests.support.runs import request, run, snapshot


def delete(root: Path, name: str = "zork", keep_lora: bool = True) -> Deleted:
    runs = RunList(root / "out", root / "loras")
    return delete_run(root / "out", runs.entry(name), root / "loras", keep_lora)


def test_the_lora_stays_unless_chosen(tmp_path: Path) -> None:
    run(tmp_path, save_every_n_epochs=1, sample_every_n_steps=10)
    loras = snapshot(tmp_path / "loras")
    deleted = delete(tmp_path)
    assert not (tmp_path / "out/zork").exists() and snapshot(tmp_path / "loras") == loras
    assert deleted.files >= 5 and deleted.size > 1000 and deleted.loras == deleted.kept == ()
    assert deleted.sentence.startswith(f"{deleted.files} files of the run zork deleted (")


def test_the_loras_that_it_wrote_and_no_other(tmp_path: Path) -> None:
    run(tmp_path, save_every_n_epochs=1)
    loras = tmp_path / "loras"
    write_lora(loras / "zork-000007.safetensors", {"x.alpha": torch.tensor(1.0)}, {"ss_session_id": "other"})
    write_lora(loras / "zork2.safetensors", {"x.alpha": torch.tensor(1.0)}, {})
    write_card(loras / "zork.safetensors", trigger="zork", preferred_weight=0.8, family=SD1)
    deleted = delete(tmp_path, keep_lora=False)
    assert {path.name for path in loras.iterdir()} == {"zork-000007.safetensors", "zork2.safetensors"}
    assert {path.name for path in deleted.loras} == {"zork.safetensors", "zork-000001.safetensors", "zork.json"}
    assert "zork-000007.safetensors stayed: nothing says that this run wrote it" in deleted.sentence


def test_a_card_that_somebody_wrote_on_stays(tmp_path: Path) -> None:
    run(tmp_path)
    lora = tmp_path / "loras/zork.safetensors"
    write_card(lora, trigger="zork", preferred_weight=0.8, family=SD1)
    card = lora.with_suffix(".json")
    card.write_text(json.dumps({**json.loads(card.read_text()), "notes": "mine"}))
    delete(tmp_path, keep_lora=False)
    assert "mine" in card.read_text() and not lora.exists()


def test_what_is_not_the_trainers_stays(tmp_path: Path) -> None:
    run(tmp_path, sample_every_n_steps=10)
    folder = tmp_path / "out/zork"
    for name in ("notes.txt", "samples/mine.png", "state/readme", "images/photo.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    deleted = delete(tmp_path)
    assert set(snapshot(folder)) == {
        str(folder / name) for name in ("notes.txt", "samples/mine.png", "state/readme", "images/photo.png")
    }
    assert len(deleted.kept) == 4 and "and 1 more stayed in its folder" in deleted.sentence


def test_links_are_not_followed(tmp_path: Path) -> None:
    run(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "state.pt").write_text("precious")
    (elsewhere / "log.jsonl").write_text("precious")
    folder = tmp_path / "out/zork"
    (folder / "state/state.pt").rename(tmp_path / "kept.pt")
    for path in (folder / "state").iterdir():
        path.unlink()
    (folder / "state").rmdir()
    (folder / "state").symlink_to(elsewhere, target_is_directory=True)
    (folder / "log.jsonl").unlink()
    (folder / "log.jsonl").symlink_to(elsewhere / "log.jsonl")
    before = snapshot(elsewhere)
    deleted = delete(tmp_path)
    assert snapshot(elsewhere) == before and [path.name for path in deleted.kept] == ["state"]
    entry = RunList(tmp_path / "elsewhere", tmp_path).entries
    assert entry() == []
    run(tmp_path, "two")
    (tmp_path / "out/link").symlink_to(tmp_path / "out/two", target_is_directory=True)
    (tmp_path / "out2").mkdir()
    (tmp_path / "out2/two").symlink_to(tmp_path / "out/two", target_is_directory=True)
    with pytest.raises(FileError, match="no run named 'link'"):
        delete(tmp_path, "link")
    found = RunList(tmp_path / "out", tmp_path / "loras").entry("two")
    with pytest.raises(FileError, match="is a link"):
        delete_run(tmp_path / "out2", found, tmp_path / "loras")
    assert (tmp_path / "out/two/run.json").is_file()


def test_a_run_in_progress_is_refused(tmp_path: Path) -> None:
    events = train(*request(tmp_path))
    for event in events:
        if isinstance(event, StepDone):
            break
    before = snapshot(tmp_path / "out")
    with pytest.raises(HostBusyError, match="zork is in progress; stop it first"):
        delete(tmp_path)
    with pytest.raises(HostBusyError, match="in progress"):
        forget_run(tmp_path / "out", "zork")
    assert snapshot(tmp_path / "out") == before
    events.close()
    with held(tmp_path / "loras/.zork.lock"), pytest.raises(HostBusyError):  # by the same name, elsewhere
        delete(tmp_path)
    delete(tmp_path)


def test_a_folder_that_cannot_be_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, stop_at=3)
    unlink = Path.unlink

    def refusing(path: Path, **options: Any) -> None:
        if path.name == "state.pt":
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        unlink(path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refusing)
        with pytest.raises(FileError, match=r"state\.pt can't be deleted .Read-only file system.*still there"):
            delete(tmp_path)
    assert RunFolder(tmp_path / "out", "zork").run.is_file(), "it is still in the list"
    opened = Path.open

    def read_only(path: Path, mode: str = "r", *more: Any, **options: Any) -> Any:
        if "r" not in mode:
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return opened(path, mode, *more, **options)

    monkeypatch.setattr(Path, "open", read_only)
    before = snapshot(tmp_path / "out")
    for act in (lambda: delete(tmp_path), lambda: forget_run(tmp_path / "out", "zork")):
        with pytest.raises(FileError, match=r"zork can't be changed: .*Read-only file system"):
            act()
    assert snapshot(tmp_path / "out") == before
    (entry,) = RunList(tmp_path / "out", tmp_path / "loras").entries()
    assert entry.resumable and entry.state == "stopped", "reading needs no writing"


def test_a_half_deleted_run_can_be_deleted(tmp_path: Path) -> None:
    run(tmp_path)
    folder = tmp_path / "out/zork"
    (folder / "log.jsonl").unlink()
    delete(tmp_path)
    assert not folder.exists()


def test_forgetting_ends_the_offer_until_it_is_interrupted_again(tmp_path: Path) -> None:
    def interrupted() -> Any:
        events = train(*request(tmp_path, resume=(tmp_path / "out/zork/run.json").exists(), save_every_n_steps=1))
        for event in events:
            if isinstance(event, StepDone):
                break
        events.close()
        (entry,) = RunList(tmp_path / "out", tmp_path / "loras").entries()
        return entry

    assert interrupted().offered
    forget_run(tmp_path / "out", "zork")
    (entry,) = RunList(tmp_path / "out", tmp_path / "loras").entries()
    assert not entry.offered and entry.resumable and entry.state == "interrupted"
    assert interrupted().offered
