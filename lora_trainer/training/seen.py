"""What a run has seen of itself until a state was saved, and what its continuation knows of that.

A continuation that began without it would take twenty steps to notice weights that grow, and would run out of memory
once more where the first part had already gone to less.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lora_trainer.training.watch.baseline import Baseline
from lora_trainer.training.watch.health import Watch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Less:
    """Memory than it began with: what a run that ran out of it has gone to."""

    recomputes: bool = False  # all blocks
    at_once: int = 0  # images of a batch; 0 for as many as ever
    in_8_bits: bool = False  # weights of all blocks
    in_cpu: bool = False  # the same, kept in CPU memory


def seen(watch: Watch, baseline: Baseline, less: Less) -> dict[str, Any]:
    """Plain values for the state file."""
    return {"watch": watch.seen(), "baseline": baseline.seen(), "less": asdict(less)}


def recall(values: Mapping[str, Any], watch: Watch, baseline: Baseline) -> Less:
    """Give a run that goes on what was seen before. Version 0.1 noted nothing, and a damaged note is no reason to end:
    the watch begins anew then."""
    if not values:
        return Less()
    try:
        noted = values["less"]
        less = Less(
            bool(noted["recomputes"]), int(noted["at_once"]), bool(noted.get("in_8_bits")), bool(noted.get("in_cpu"))
        )
        watch.recall(values["watch"])
        baseline.recall(values["baseline"])
    except Exception as error:
        log.info("What the run had seen before isn't known", exc_info=error)
        return Less()
    return less
