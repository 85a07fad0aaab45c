"""Which file at which strength is the best, by what was measured."""

from __future__ import annotations

from collections.abc import Sequence

from lora_trainer.evaluation.measuring import Cell
from lora_trainer.measures.denoising import DRIFT_CAP


def worth(cell: Cell) -> float:
    """What is compared: the gain on the training images; without them, how far the LoRA moves at all."""
    return cell.gain.value if cell.gain is not None else cell.drift.value


def best_cell(cells: Sequence[Cell]) -> Cell:
    """The largest gain among the cells whose drift stays under the cap, or the least drift if none does.

    Gain alone goes on rising with overtraining; the cap on the damage is what keeps it honest (docs/verdict.md).
    """
    fit = [cell for cell in cells if cell.drift.value <= DRIFT_CAP]
    return max(fit, key=worth) if fit else min(cells, key=lambda cell: cell.drift.value)


def ranked_files(cells: Sequence[Cell]) -> list[str]:
    """The files by their best cells, the best first."""
    files = dict.fromkeys(cell.file for cell in cells)
    best = {file: best_cell([cell for cell in cells if cell.file == file]) for file in files}
    return sorted(files, key=lambda file: (best[file].drift.value > DRIFT_CAP, -worth(best[file])))
