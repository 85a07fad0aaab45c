"""``runs``, and continuing a run by its name."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from lora_trainer.cli import main
from lora_trainer.training.folder import RunFolder
from tests.support.command_line import interrupt, on_step, one_line, train


def stopped(monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    with monkeypatch.context() as patched:
        on_step(patched, 3, interrupt)
        assert train(*more) == 0


def test_list_and_show(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs"]) == 0 and "There are no runs in output." in capsys.readouterr().out
    stopped(monkeypatch)
    assert train(name="done") == 0
    capsys.readouterr()
    assert main(["runs"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("done finished all 10 steps, today ")
    assert second.startswith("zork was stopped at step 3 of 10, today ") and second.endswith("; can be continued")
    assert main(["runs", "show", "zork"]) == 0
    shown = capsys.readouterr().out
    assert f"Dataset: {place / 'data'}" in shown and "Trigger word: zork" in shown and "zork.safetensors" in shown
    assert "Step 3: loss " in shown and "train --resume --name zork" in shown
    for command in (["runs", "--json"], ["runs", "list", "--json"], ["runs", "--json", "--output", "output", "list"]):
        assert main(command) == 0
        assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["done", "zork"]
    assert main(["runs", "show", "zork", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["settings"]["config"]["network_dim"] == 4 and [row[0] for row in found["losses"]] == [1, 2, 3]
    assert main(["runs", "show", "zorp"]) == 2
    assert "There is no run named 'zorp'" in one_line(capsys.readouterr().err)


def test_a_run_is_continued_by_its_name(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("--lora-dir", "mine", name="whole") == 0
    stopped(monkeypatch, "--lora-dir", "mine")
    facts = RunFolder(Path("output"), "zork").read_run()
    facts["base_model"]["path"] = "base.safetensors"  # which the tiny host doesn't know
    RunFolder(Path("output"), "zork").write_run(facts)
    assert main(["train", "--resume", "--name", "zork"]) == 0
    assert "from step 3" in capsys.readouterr().out
    assert Path("mine/zork.safetensors").is_file() and not Path("output/lora/zork.safetensors").exists()
    log = [json.loads(line)["loss"] for line in Path("output/zork/log.jsonl").read_text().splitlines()]
    whole = [json.loads(line)["loss"] for line in Path("output/whole/log.jsonl").read_text().splitlines()]
    assert log == whole, "with the options that it was begun with"
    assert main(["train", "--resume", "--name", "nobody"]) == 2
    assert "There is no run named 'nobody'" in one_line(capsys.readouterr().err)
    (place / "output/zork/run.json").write_text("{")
    assert main(["train", "--resume", "--name", "zork"]) == 2
    assert "run.json isn't valid JSON" in one_line(capsys.readouterr().err)


def test_delete_asks(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert train() == 0 and train(name="other") == 0
    capsys.readouterr()
    assert main(["runs", "delete", "zork"]) == 2
    assert "add --yes" in one_line(capsys.readouterr().err) and Path("output/zork/run.json").is_file()

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal("\n"))
    assert main(["runs", "delete", "zork"]) == 0
    assert "Nothing was deleted" in capsys.readouterr().out and Path("output/zork/run.json").is_file()
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert main(["runs", "delete", "zork"]) == 0
    assert "of the run zork deleted" in capsys.readouterr().out
    assert not Path("output/zork").exists() and Path("output/lora/zork.safetensors").is_file()
    assert main(["runs", "delete", "other", "--with-lora", "--yes"]) == 0
    assert "Also deleted: " in capsys.readouterr().out
    assert not list(Path("output/lora").glob("other*")) and not Path("output/other").exists()


def test_forget(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import os
    import signal

    with monkeypatch.context() as patched:
        on_step(patched, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert train() == 128 + signal.SIGTERM
    capsys.readouterr()
    assert main(["runs"]) == 0 and "To continue zork: " in capsys.readouterr().out
    assert main(["runs", "--output", str(Path("output").absolute())]) == 0
    assert capsys.readouterr().out.endswith(f"--name zork --output {Path('output').absolute()}\n")
    assert main(["runs", "forget", "zork"]) == 0 and "isn't offered any more" in capsys.readouterr().out
    assert main(["runs"]) == 0
    told = capsys.readouterr().out
    assert "To continue" not in told and "can be continued" in told
