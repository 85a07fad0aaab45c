"""The run's own folder: what of an earlier part of a run counts when it goes on."""

from __future__ import annotations

from pathlib import Path

from lora_trainer.training.folder import RunFolder


def test_samples_of_later_steps_do_not_count(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "zork")
    folder.prepare()
    folder.samples.mkdir(parents=True, exist_ok=True)
    for name in ("step000000_00.png", "step000010_01.png", "step000020_02.png", "step000030_00.png", "notes.png"):
        (folder.samples / name).touch()
    assert [(step, prompt, path.name) for step, prompt, path in folder.samples_until(20)] == [
        (0, 0, "step000000_00.png"), (10, 1, "step000010_01.png"), (20, 2, "step000020_02.png"),
    ]  # fmt: skip
