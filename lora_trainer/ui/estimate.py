"""How long a run will be: steps are counted, seconds are those of an earlier run on this machine, or unknown."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from lora_trainer.config import RunConfig
from lora_trainer.errors import FileError
from lora_trainer.files import parse_json, read_object

if TYPE_CHECKING:
    from lora_trainer.dataset.items import Dataset

NEWEST = 30  # runs that are looked at
TAIL = 4096  # bytes of a log: some twenty steps
SAME = (  # options that decide how long a step takes
    "resolution", "train_batch_size", "gradient_accumulation_steps", "gradient_checkpointing", "memory_limit_gb",
    "mixed_precision", "base_8bit", "blocks_in_cpu_memory",
    "cache_latents", "network_train_unet_only", "network_train_text_encoder_only", "enable_bucket",
)  # fmt: skip


@dataclass(frozen=True)
class Pace:
    """Seconds a step, as the run ``name`` had them."""

    seconds: float
    name: str


def count_steps(dataset: Dataset, config: RunConfig) -> tuple[int, int]:
    """Steps and epochs of a run in one process."""
    from lora_trainer.dataset.batches import (
        batches_per_epoch,
        bucket_samples,
        count_batches,
        total_epochs,
        total_steps,
    )

    if dataset.subsets:  # a dataset file has batch sizes of its own
        batches = batches_per_epoch(dataset)
    else:
        batches = count_batches(bucket_samples(dataset).values(), config.dataset.train_batch_size)
    steps = total_steps(config.optimizer, batches)
    return steps, total_epochs(steps, batches, config.optimizer.gradient_accumulation_steps)


class Paces:
    """The paces of earlier runs in an output folder; logs are read once."""

    def __init__(self) -> None:
        self._read: dict[Path, tuple[float, dict[str, Any], float | None]] = {}

    def like(self, output: Path, config: RunConfig, checkpoint: str) -> Pace | None:
        """The pace of the newest run on this checkpoint whose steps are like those of ``config``."""
        wanted = config.to_dict()
        for path, run, seconds in self._runs(output):
            theirs, model = run.get("config"), run.get("base_model")
            if not isinstance(theirs, dict) or not isinstance(model, dict):
                continue
            if model.get("name") != checkpoint or seconds is None:
                continue
            if all(theirs.get(name) == wanted[name] for name in SAME):
                return Pace(seconds, path.parent.name)
        return None

    def _runs(self, output: Path) -> Iterator[tuple[Path, dict[str, Any], float | None]]:
        logs = [path for path in output.glob("*/log.jsonl") if path.with_name("run.json").is_file()]
        newest = sorted(((log.stat().st_mtime, log.with_name("run.json")) for log in logs), reverse=True)
        for changed, path in newest[:NEWEST]:
            if self._read.get(path, (None,))[0] != changed:
                self._read[path] = (changed, _json(path), _seconds(path.with_name("log.jsonl")))
            _, run, seconds = self._read[path]
            yield path, run, seconds


def _json(path: Path) -> dict[str, Any]:
    try:
        return read_object(path)
    except FileError:
        return {}


def _seconds(log: Path) -> float | None:
    """The median over the last steps; the first one of a run is slower than all others."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL))
            lines = file.read().decode("utf-8", "replace").splitlines()
        rows = [parse_json(line, "a line") for line in lines if line.startswith("{") and line.endswith("}")]
        seconds = [float(row["seconds"]) for row in rows if row["step"] > 1]
    except (FileError, OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
    seconds = [value for value in seconds if 0 < value < math.inf]
    return median(seconds) if seconds else None


def gpu_memory() -> tuple[float, float] | None:
    """Free and total GB of the CUDA device in use; None without one."""
    torch = sys.modules.get("torch")  # a page must not be what loads it
    if torch is None or not torch.cuda.is_available():
        return None
    free, total = torch.cuda.mem_get_info()
    return free / 2**30, total / 2**30
