"""The installer: when it adds bitsandbytes, which release, and how."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).resolve().parents[1] / "install.py"


class Launch(types.ModuleType):
    """The WebUI's ``launch``: notes what it is asked to install."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__("launch")
        self.commands: list[str] = []
        self.fails = fails

    def run_pip(self, command: str, desc: str | None = None) -> None:
        self.commands.append(command)
        if self.fails:
            raise RuntimeError("Couldn't install.\nstderr: no network")


def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, launch: Launch | None, **machine: Any) -> str | None:
    """Execute install.py on a made-up machine."""
    version = machine.get("torch", "2.1.2+cu121")
    cuda = machine.get("cuda", "'12.1'")
    (tmp_path / "torch").mkdir(exist_ok=True)
    (tmp_path / "torch" / "version.py").write_text(
        f"from typing import Optional\n__version__ = '{version}'\ncuda: Optional[str] = {cuda}\nhip = None\n"
    )
    specs = {"torch": types.SimpleNamespace(origin=str(tmp_path / "torch" / "__init__.py"))}
    if machine.get("installed"):
        specs["bitsandbytes"] = types.SimpleNamespace(origin="x")
    spec = importlib.util.spec_from_file_location("lora_trainer_install", FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "launch", launch)  # None: the import fails
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: specs.get(name))
    monkeypatch.setattr("shutil.which", lambda name: "/bin/x" if machine.get("card", True) else None)
    spec.loader.exec_module(module)
    return module.wanted()


def test_a_card_and_no_bitsandbytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    launch = Launch()
    assert run(monkeypatch, tmp_path, launch) == "0.45.5"
    assert (
        len(launch.commands) == 1 and "--no-deps" in launch.commands[0] and "bitsandbytes==0.45.5" in launch.commands[0]
    )


@pytest.mark.parametrize(
    ("torch", "release"),
    [
        ("2.0.1+cu118", "0.45.5"),
        ("2.3.1", "0.45.5"),
        ("2.4.0+cu124", "0.50.2"),
        ("2.13.0+cu130", "0.50.2"),
        ("1.13.1", None),
    ],
)  # fmt: skip
def test_the_release_suits_torch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, torch: str, release: str | None
) -> None:
    assert run(monkeypatch, tmp_path, Launch(), torch=torch) == release


@pytest.mark.parametrize("machine", [{"card": False}, {"cuda": "None"}, {"installed": True}, {"torch": "1.13.1+cu117"}])
def test_where_there_is_nothing_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    launch = Launch()
    assert run(monkeypatch, tmp_path, launch, **machine) is None
    assert launch.commands == [] and capsys.readouterr().out == ""


def test_a_failure_is_one_line_and_no_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, tmp_path, Launch(fails=True))
    said = capsys.readouterr().out
    assert "no network" in said and "works without it" in said and "Traceback" not in said


def test_outside_a_webui(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, tmp_path, None)
    assert "for a WebUI" in capsys.readouterr().out
