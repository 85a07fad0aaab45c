"""Optimiser and scheduler classes by their path ``package.module.Class``, from packages that are known.

To import a module is to run it, and settings travel: a preset from somewhere, a request, a remembered form. So a path
in them reaches only packages that people train with, as they are installed, and only a class of the kind that is
wanted. Any other path has to be typed on the command line, by the person who then runs it.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

from lora_trainer.config import RunConfig
from lora_trainer.errors import ConfigError, first_line, quoted, shortened

T = TypeVar("T")

PACKAGES = (  # everything below these
    "torch.optim", "bitsandbytes", "transformers.optimization", "prodigyopt", "prodigyplus", "pytorch_optimizer",
    "torch_optimizer", "schedulefree", "dadaptation", "lion_pytorch", "came_pytorch", "adabelief_pytorch",
    "adan_pytorch", "galore_torch", "q_galore_torch", "apollo_torch", "adam_mini", "heavyball", "optimi", "grokadamw",
)  # fmt: skip
MODULES = ("transformers",)  # these themselves, but nothing below
OPTIONS = ("optimizer_type", "lr_scheduler_type")
INSTEAD = {  # what to choose where a package is missing
    "bitsandbytes": "AdamW (its states are small for a LoRA)",
    "dadaptation": "Prodigy, which needs no package",
    "schedulefree": "AdamW with a cosine schedule",
    "transformers": "AdamW",
}


def check_paths(config: RunConfig, typed: Collection[str] = ()) -> list[str]:
    """Look at the class paths of a configuration without importing anything.

    Args:
        typed: paths that were typed on the command line.

    Returns:
        A line for each that is used only because it was typed.

    Raises:
        ConfigError: for a path that isn't used from where it comes.
    """
    lines = []
    for option in OPTIONS:
        path = config.value(option).strip()
        if "." in path and not _is_known(path):
            _refuse_unless_typed(option, path, typed)
            lines.append(
                f"{option} {path} isn't in a known package; its code is run because you gave it on the command line."
            )
    return lines


def load_class(option: str, path: str, kind: type[T], typed: Collection[str] = (), name: str = "") -> type[T]:
    """The class at ``path``, a subclass of ``kind``; ``name`` is what the user calls it.

    Raises:
        ConfigError: in one sentence, if it isn't to be used, can't be imported or is something else.
    """
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", path, re.ASCII):
        raise ConfigError(f"{option} can't be {quoted(path)}; give a class path such as package.module.Class.")
    called = f"{option} {name or path}"
    module, _, attribute = path.rpartition(".")
    package = module.partition(".")[0]
    if _is_known(path):
        _refuse_local(option, path, package)
    else:
        _refuse_unless_typed(option, path, typed)
    remedy = f"choose {INSTEAD[package]}" if package in INSTEAD else ""
    try:
        found: Any = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        install = f"{remedy}, or install {package}" if remedy else f"install {package}"
        raise ConfigError(f"{called} can't be imported ({first_line(error)}); {install}.") from error
    except (Exception, SystemExit) as error:  # whatever a module does while it is imported
        raise ConfigError(
            f"{called} can't be loaded from {module} ({first_line(error)}); {remedy or 'check the class path'}."
        ) from error
    if not (inspect.isclass(found) and issubclass(found, kind) and found is not kind):
        raise ConfigError(f"{called} is something else; give a subclass of {kind.__module__}.{kind.__name__}.")
    return found


def _is_known(path: str) -> bool:
    module = path.rpartition(".")[0]
    below = any(module == package or module.startswith(f"{package}.") for package in PACKAGES)
    return (below or module in MODULES) and "__" not in path  # __main__ is a program


def _refuse_unless_typed(option: str, path: str, typed: Collection[str]) -> None:
    if path not in typed:
        raise ConfigError(
            f"{option} {quoted(path)} isn't in a known package, and importing it would run its code; if you trust it, "
            f"give it on the command line: --set {option}={shortened(path)}."
        )


def _refuse_local(option: str, path: str, package: str) -> None:
    """A file in the folder that the program was started in may have a known package's name.

    Raises:
        ConfigError: if it would be taken instead of the package.
    """
    try:
        spec = importlib.util.find_spec(package)  # of a top-level name: nothing is imported
    except ValueError:  # a module without a specification, put there by a program
        return
    if spec is None:
        return
    folders = [Path(place).resolve().parent for place in spec.submodule_search_locations or []]
    if not folders and spec.has_location and spec.origin:  # a single file
        folders = [Path(spec.origin).resolve().parent]
    if Path.cwd().resolve() in folders:
        raise ConfigError(
            f"{option} {path} isn't imported, since a {package} lies in the current folder and would be taken for the "
            "package of that name; start the program somewhere else, or rename it."
        )
