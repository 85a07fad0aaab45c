"""A file that a run saved on its way becomes the LoRA itself. Nothing is deleted: what it was stays beside it."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from lora_trainer.card import write_card
from lora_trainer.errors import FileError, quoted, shortened
from lora_trainer.evaluation.lora_file import read_trigger
from lora_trainer.evaluation.prompts import DEFAULT_STRENGTH
from lora_trainer.evaluation.tested import best_strength, rows_of
from lora_trainer.evaluation.trained import read_run
from lora_trainer.files import replaced
from lora_trainer.runs.alone import alone
from lora_trainer.runs.entry import RunEntry
from lora_trainer.runs.loras import SAVED, named
from lora_trainer.training.folder import RunFolder
from lora_trainer.training.taken import session_of

if TYPE_CHECKING:
    from lora_trainer.card import Card


@dataclass(frozen=True)
class Used:
    """What was done; ``kept`` is where the LoRA's former weights are, if nowhere else."""

    lora: Path
    file: Path
    kept: Path | None
    sentence: str


def use_file(output: Path, entry: RunEntry, name: str, lora_dir: Path) -> Used:
    """Let one of a run's saved files be its LoRA, with the strength and the preview that its test found.

    Args:
        name: the file's name, with or without ``.safetensors``.

    Raises:
        HostBusyError: if the run is in progress.
        FileError: if there is no such file, it isn't the run's, or something can't be written.
    """
    lora = entry.lora if entry.lora is not None else lora_dir / f"{entry.name}.safetensors"
    folder = RunFolder(output, entry.name)
    chosen = _chosen(lora, name, folder)
    with alone(folder, lora.parent):
        if lora.is_file() and lora.read_bytes() == chosen.read_bytes():
            return Used(lora, chosen, None, f"{lora.name} is {chosen.name} already.")
        kept = _keep(lora)
        _copy(chosen, lora)
        card = _card(lora, chosen, folder.path)
    words = [f"{lora.name} is {chosen.name} now."]
    if kept is not None:
        words.append(f"What it was is kept as {kept.name}.")
    return Used(lora, chosen, kept, " ".join([*words, *card.notices]))


def _chosen(lora: Path, name: str, folder: RunFolder) -> Path:
    wanted = name.removesuffix(".safetensors")
    there = named(lora.parent, lora.stem)
    found = next((path for path in there if path.stem == wanted), None)
    if found is None:
        names = ", ".join(path.name for path in there) or "no file at all"
        raise FileError(f"{quoted(name)} isn't a file of the run {lora.stem}; there is {shortened(names)}.")
    own = folder.sessions()
    if own is not None and session_of(found) not in own:
        raise FileError(f"{found.name} wasn't written by the run {lora.stem}; choose a file that it saved.")
    return found


def _keep(lora: Path) -> Path | None:
    """Another file with the LoRA's present weights, unless there is one already."""
    if not lora.is_file():
        return None
    content, number = lora.read_bytes(), 1
    for other in lora.parent.glob("*.safetensors"):
        same_size = other.stat().st_size == len(content)
        if same_size and re.fullmatch(rf"{re.escape(lora.stem)}{SAVED}", other.stem) and other.read_bytes() == content:
            return None
    while (kept := lora.with_name(f"{lora.stem}-was{f'-{number}' if number > 1 else ''}.safetensors")).exists():
        number += 1
    _copy(lora, kept)
    return kept


def _copy(source: Path, target: Path) -> None:
    with replaced(target) as temporary:
        shutil.copyfile(source, temporary)


def _card(lora: Path, chosen: Path, folder: Path) -> Card:
    """The LoRA's card with what the test found of the chosen file."""
    report = read_run(folder / "report.json")
    strength = best_strength(report, chosen.name)
    rows = [row for row in rows_of(report, "images") if row["file"] == chosen.name and row["kind"] != "integration"]
    row = min(rows, key=lambda row: abs(row["strength"] - (strength or DEFAULT_STRENGTH)), default=None)
    preview, infotext = None, ""
    if row is not None:
        with suppress(OSError), Image.open(folder / row["path"]) as image:
            preview = image.copy()
            infotext = row["infotext"].replace(f"<lora:{chosen.stem}:", f"<lora:{lora.stem}:")
    return write_card(lora, trigger=read_trigger(lora), preferred_weight=strength, preview=preview, infotext=infotext)
