"""What to train, and whether its name can be used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lora_trainer.config import RunConfig
from lora_trainer.errors import ConfigError, quoted
from lora_trainer.files import IMPOSSIBLE, name_problem
from lora_trainer.training.folder import SHARED_NAMES, RunFolder
from lora_trainer.training.lock import check_free
from lora_trainer.training.taken import check_taken

FORBIDDEN_IN_NAMES = IMPOSSIBLE + ","  # the prompt syntax <lora:NAME:w> ends a name there


@dataclass(frozen=True)
class RunRequest:
    """What to train and where the files go."""

    name: str
    dataset: Path
    config: RunConfig
    output: Path  # the folder that will hold <name>/
    resume: bool = False
    overwrite: bool = False
    typed: frozenset[str] = frozenset()  # class paths that were typed on the command line, by the user who runs them
    trigger: str = ""  # empty: what the folders of the dataset say


def check_name(request: RunRequest, lora_dir: Path) -> None:
    """Refuse a name that can't be used in ``<lora:NAME:w>`` or is taken.

    Raises:
        ConfigError: in one sentence.
        HostBusyError: if a run of that name is in progress: it wasn't interrupted, and there is nothing to choose.
    """
    check_syntax(request, lora_dir)
    folder = RunFolder(request.output, request.name)
    check_free(*folder.locks(lora_dir))
    check_taken(folder, lora_dir, request.config.save, request.resume, request.overwrite)


def check_syntax(request: RunRequest, lora_dir: Path) -> None:
    """Refuse a name that can't be used in ``<lora:NAME:w>``, as a file's, or as that of the run's folder.

    Raises:
        ConfigError: in one sentence.
    """
    name = request.name
    problem = name_problem(name, FORBIDDEN_IN_NAMES)
    if not problem and (name.lower() in SHARED_NAMES or (request.output / name).resolve() == lora_dir.resolve()):
        problem = "the output folder needs that name for something else"
    if problem or name.lower() == "none":
        problem = problem or "it is reserved"
        raise ConfigError(f"The name {quoted(name)} can't be used: {problem}. Use letters, digits, - and _.")
