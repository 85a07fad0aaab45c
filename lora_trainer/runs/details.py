"""All that is to be seen of one run: its settings, its curve, its files, the end of its log."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_trainer.errors import FileError, LoraTrainerError
from lora_trainer.evaluation.lora_file import saved_points
from lora_trainer.evaluation.trained import read_log, read_run
from lora_trainer.runs.entry import RunEntry
from lora_trainer.runs.left import number, text
from lora_trainer.runs.loras import written
from lora_trainer.runs.recorded import Recorded, recorded
from lora_trainer.training.events import Learned
from lora_trainer.training.folder import RunFolder, read_learned

MOST_POINTS = 1000  # of the curve, beside the few that were compared with the base model
LAST = 50  # lines of the log
MOST_SAMPLES = 300


@dataclass(frozen=True)
class Details:
    """One run, in full."""

    entry: RunEntry
    settings: Recorded | None  # None: why is among the entry's warnings, or in ``problem``
    problem: str
    losses: list[tuple[int, float, float | None]]  # step, loss, the base model's loss there
    learned: list[Learned]  # at each save
    log: list[dict[str, Any]]  # its last lines
    saves: list[Path]  # LoRA files, the final one last
    samples: list[tuple[int, int, Path]]  # step, number of the prompt, file
    prompts: list[str]  # of the samples, by number
    notices: list[str]


def details(output: Path, entry: RunEntry) -> Details:
    """Read all of a run.

    Args:
        entry: what the list says of it.
    """
    folder = RunFolder(output, entry.name)
    rows = read_log(folder.log)
    stride = -(-len(rows) // MOST_POINTS) or 1
    settings, problem = None, ""
    try:
        settings = recorded(output, entry.name)
    except LoraTrainerError as error:
        problem = str(error)
    facts = read_run(folder.run)
    notices, prompts = (facts.get(key) for key in ("notices", "sample_prompts"))
    return Details(
        entry,
        settings,
        problem,
        losses=[
            (row["step"], row["loss"], _baseline(row))
            for number, row in enumerate(rows, 1)
            if number % stride == 0 or _baseline(row) is not None
        ],
        learned=list(read_learned(folder.learned)),
        log=rows[-LAST:],
        saves=_saves(entry.lora) or written(folder, Path(text(facts.get("lora_dir")) or output / "lora")),
        samples=folder.samples_until(2**63)[-MOST_SAMPLES:],
        prompts=[str(text) for text in prompts] if isinstance(prompts, list) else [],
        notices=[str(line) for line in notices] if isinstance(notices, list) else [],
    )


def _baseline(row: dict[str, Any]) -> float | None:
    value = row.get("baseline")
    return number(value) if type(value) in (int, float) else None


def _saves(lora: Path | None) -> list[Path]:
    if lora is None:
        return []
    try:
        return [*(point.path for point in saved_points(lora)), lora]
    except FileError:  # a damaged file
        return [lora]
