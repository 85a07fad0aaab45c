"""The texts that people read: every command and file that they name exists, and each thing has one name."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest

from lora_trainer.cli.parser import build_parser
from lora_trainer.config import OPTIONS, parse_assignments
from lora_trainer.config.presets import PRESETS, find_preset

ROOT = Path(__file__).resolve().parents[1]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", ROOT / "docs" / "options.md")}
COMMANDS = [
    match
    for page in PAGES.values()
    for match in re.findall(r"^ {4}.*?-m lora_trainer (.+?)(?: {2,}#.*)?$", page, re.MULTILINE)
]
RETIRED = {  # in the help of options, presets and commands -> what this is called there
    "picture": "image", "passes": "epochs", "training rate": "learning rate", "recompute": "gradient checkpointing",
    "optimizer ": "optimiser", "color": "colour",
}  # fmt: skip


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_in_the_pages_are_understood(line: str) -> None:
    words = [word for word in shlex.split(line) if word != "…"]
    if "…" in line:  # stands for what an earlier example gives
        words += ["--checkpoint", "x", "--dataset", "x", "--name", "x"]
    args = build_parser().parse_args(words)
    parse_assignments(getattr(args, "set", []))
    if getattr(args, "preset", None):
        find_preset(args.preset)


def test_the_pages_show_every_command() -> None:
    commands = next(action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    shown = {line.split()[0] for line in COMMANDS} | {"demo"}  # by `make demo`
    assert shown >= set(commands.choices)


@pytest.mark.parametrize("page", PAGES)
def test_targets_and_files_in_the_pages_exist(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:^ {4}(?:\S+=\S+ )?|`)make ([\w-]+)", PAGES[page], re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    named = re.findall(r"`((?:lora_trainer|docs)/[\w./-]+)`", PAGES[page])
    linked = re.findall(r"\]\(((?!http)[^)#]+)\)", PAGES[page])
    for name in named + linked:
        assert (ROOT / name).exists() or (ROOT / "lora_trainer" / name).exists(), name


def test_one_name_for_each_thing() -> None:
    texts = {f"option {row.name}": row.help for row in OPTIONS.values()}
    texts |= {f"preset {preset.name}": f"{preset.label}. {preset.help}" for preset in PRESETS}
    parsers: list[argparse.ArgumentParser] = [build_parser()]
    for parser in parsers:  # grows while it is read
        texts[parser.prog] = " ".join([str(parser.description), *(str(action.help) for action in parser._actions)])
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
    for where, text in texts.items():
        found = [word for word in RETIRED if word in text.lower().replace("(passes over the dataset)", "")]
        assert not found, f"{where}: {[f'{word!r} is called {RETIRED[word]} here' for word in found]}"
