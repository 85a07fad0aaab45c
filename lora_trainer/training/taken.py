"""What a run would write over, found out beforehand: nothing that isn't this run's own is replaced unasked."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from lora_trainer.config import SaveConfig
from lora_trainer.errors import FileError, NameTakenError
from lora_trainer.safetensors_file import read_header
from lora_trainer.training.folder import RunFolder

MOST_NAMED = 3  # files in a sentence
SESSION = "ss_session_id"


def check_taken(folder: RunFolder, lora_dir: Path, save: SaveConfig, resume: bool, overwrite: bool) -> None:
    """Refuse to begin, or to go on, over what somebody may want to keep.

    Args:
        folder: of the run that is to begin or to go on.
        save: which intermediate files will be written.
        resume: whether that run is to go on; its own files may be replaced then.
        overwrite: whether everything may be replaced.

    Raises:
        NameTakenError: names the files, and the choices that there are.
        FileError: if there is no run that could go on.
    """
    if overwrite:
        return
    there = lora_files(lora_dir, folder.name, save)
    if resume:
        if not folder.has_state:
            raise FileError(f"There is nothing to resume: {folder.state} doesn't exist. Start without resuming.")
        own = folder.sessions()
        others = [path for path in there if own is not None and session_of(path) not in own]
        if others:
            raise NameTakenError(
                f"{_listed(others)} in {lora_dir} would be replaced, but this run didn't write it. Move it away, or "
                "allow replacing it.",
                ("resume+overwrite",),
            )
        return
    if folder.has_state:
        raise NameTakenError(f"{_history(folder, there)}. {_ways('Continue it, replace it')}", ("resume", "overwrite"))
    if there:
        verb = "exists" if len(there) == 1 else "exist"
        raise NameTakenError(
            f"{_listed(there, full=True)} {verb} already. {_ways('Replace it' if len(there) == 1 else 'Replace them')}",
            ("overwrite",),
        )
    results = folder.results()
    if results:
        raise NameTakenError(
            f"{folder.path} holds the results of another run ({_listed(results)}). {_ways('Replace them')}",
            ("overwrite",),
        )


def lora_files(lora_dir: Path, name: str, save: SaveConfig) -> list[Path]:
    """The files there are that a run of this name would write, or might: how long it will be isn't known yet."""
    final = lora_dir / f"{name}.safetensors"
    found = [final] if final.exists() else []
    for path in sorted(lora_dir.glob(f"{glob.escape(name)}-*.safetensors")):
        match = re.fullmatch(r"-(?:(\d{6})|step(\d{8}))", path.stem[len(name) :])
        if path.stem == f"{name}-ema":
            found.append(path)
        if match is None:
            continue
        every = save.save_every_n_epochs if match.group(1) else save.save_every_n_steps
        if every and int(match.group(1) or match.group(2)) % every == 0:
            found.append(path)
    return found


def session_of(path: Path) -> str:
    """The session that a LoRA file names as its origin; empty if it names none or can't be read."""
    try:
        return read_header(path).metadata.get(SESSION, "")
    except FileError:
        return ""


def _history(folder: RunFolder, there: list[Path]) -> str:
    """What is known of the run in this folder."""
    done, steps = folder.last_step(), folder.planned_steps()
    file = f"{there[0]} exists already: " if there else ""
    if done is None or not steps:
        return f"{file}there is a run named {folder.name} in {folder.path.parent}"
    if done >= steps:
        return f"{file}a run named {folder.name} finished at step {steps}"
    return f"{file}a run named {folder.name} was interrupted after step {done} of {steps}"


def _ways(choices: str) -> str:
    return f"{choices}, or choose another name."


def _listed(paths: list[Path], full: bool = False) -> str:
    names = [str(path) if full else path.name for path in paths[:MOST_NAMED]]
    rest = len(paths) - MOST_NAMED
    return ", ".join(names) + (f" and {rest} more" if rest > 0 else "")
