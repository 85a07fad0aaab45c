"""What pip would install: every file that the package reads, and the extras that its messages name."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")  # tomllib needs Python 3.11


def test_every_data_file_is_packaged() -> None:
    line = re.search(r"^lora_trainer = (\[.+\])$", PYPROJECT, re.MULTILINE)
    assert line
    endings = set(re.findall(r'"\*\*/\*(\.\w+)"', line[1]))
    package = ROOT / "lora_trainer"
    files = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {path.suffix for path in files} - {".py"} <= endings


def test_extras_that_messages_name_exist() -> None:
    section = PYPROJECT.split("[project.optional-dependencies]")[1].split("\n[")[0]
    extras = set(re.findall(r"^(\w+) = \[", section, re.MULTILINE))
    named = set()
    for path in (ROOT / "lora_trainer").rglob("*.py"):
        named |= set(re.findall(r"pip install (?:lora-trainer|'\.)\[(\w+)\]", path.read_text(encoding="utf-8")))
    assert "ui" in named and named <= extras


def test_lint_exceptions_are_for_files_that_exist() -> None:
    section = PYPROJECT.partition("per-file-ignores]")[2].split("\n[")[0]
    for name in re.findall(r'^"([^"*]+)" =', section, re.MULTILINE):
        assert (ROOT / name).is_file(), name
