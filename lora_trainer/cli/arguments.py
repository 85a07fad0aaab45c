"""What the parsers of all commands are made of."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message[:1].upper()}{message[1:]}. Try {self.prog} --help\n")


def folder(text: str) -> Path:
    """A folder that is there or can be made."""
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a file; give a folder")
    return path


def file(text: str) -> Path:
    """A file that is there."""
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return Path(text)


def given(text: str) -> str:
    """A text that isn't empty."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; leave it out for the default")
    return text


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"it can't be {text[:40]!r}; give a whole number of at least 1")
    return int(text)


def side(text: str) -> int:
    """Pixels."""
    pixels = count(text)
    if pixels % 8:
        raise argparse.ArgumentTypeError(f"it can't be {pixels}; give a multiple of 8")
    return pixels


def later(function: str) -> Callable[[argparse.Namespace], Any]:
    """The function ``module.name`` of this package, imported only when its command runs."""
    module, name = function.split(".")

    def run(args: argparse.Namespace) -> Any:
        return getattr(import_module(f"lora_trainer.cli.{module}"), name)(args)

    return run


def new_command(commands: Any, common: Any, name: str, function: str, help: str, epilog: str = "") -> Parser:
    """A command whose work is done by ``module.function`` of this package."""
    made: Parser = commands.add_parser(name, parents=[common], help=help, description=help, epilog=epilog or None)
    made.set_defaults(run=later(function))
    return made


def add_preset(command: Parser) -> None:
    """``--preset``"""
    command.add_argument("--preset", metavar="NAME", help="start from a preset; 'config presets' lists them")


def add_set(command: Parser) -> None:
    """``--set``"""
    command.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="set single options; 'config options' lists them",
    )  # fmt: skip


def add_train_options(command: Parser) -> None:
    """The options of ``train``, which the queue has, too."""
    command.add_argument("--checkpoint", type=Path, metavar="FILE", help="the base model, .safetensors or .ckpt")
    command.add_argument("--vae", type=Path, metavar="FILE", help="take the VAE from this file")
    command.add_argument(
        "--dataset",
        "--dataset_config",
        type=Path,
        metavar="DIR",
        help="the folder that holds <repeats>_<trigger> folders of images, or sd-scripts' dataset file (TOML or JSON)",
    )
    command.add_argument("--name", help="the LoRA's name, as in NAME.safetensors and <lora:NAME:1>")
    command.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="a settings file: this program's, a run.json, kohya's JSON, or sd-scripts' TOML",
    )
    add_preset(command)
    add_set(command)
    command.add_argument(
        "--lora-dir", type=folder, metavar="DIR", help="folder for the LoRA file; default: OUTPUT/lora"
    )
    command.add_argument(
        "--output",
        type=folder,
        metavar="DIR",
        help="folder for runs: log, state and report go to OUTPUT/NAME; default: output",
    )
    command.add_argument("--resume", action="store_true", help="continue the stopped run of this name")
    command.add_argument("--overwrite", action="store_true", help="replace a LoRA or a run of this name")
    command.add_argument("--test", action="store_true", help="test the result afterwards, as the command test does")
