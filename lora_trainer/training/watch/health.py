"""Whether a training still learns: its loss against the base model's, the norms of gradients and weights, fp16.

The limits were chosen on runs with high rates that work and on runs that diverge; docs/watch.md has the table.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from statistics import median
from typing import Any

from lora_trainer.training.watch.facts import Facts, Finding
from lora_trainer.training.watch.pace import Pace

PROVEN = 10  # steps after which a state is known to be good: a divergence would have been noticed
PAIRS, FAR = 5, 3.0  # so many compared steps, whose losses together are so many times the base model's
SUSPECT = 2.0  # times the base model's loss, or what is expected of it, from which on every step is compared
IN_A_ROW, STEEP, RECENT = 5, 1000.0, 100  # gradients so many times their median of the steps before
GROWN, WITHIN = 10.0, 20  # weights so many times as large as so many steps before
MOVED = 2.0  # times their size of before, from which on their growth isn't good any more
MOST_SKIPPED = 6  # in a row: a scaler that finds its place skips fewer


class Watch:
    """Looks at one step after the other; what it tells depends on nothing else.

    Args:
        from_zero: whether all trained weights are zero at first, so that their growth to many times their size says
            nothing.

    Attributes:
        suspicious: whether the next step should be compared with the base model, out of turn.
    """

    def __init__(self, from_zero: bool = False) -> None:
        self.suspicious = False
        self._from_zero = from_zero
        self._pairs: deque[Facts] = deque(maxlen=PAIRS)
        self._gradients: deque[float] = deque(maxlen=RECENT)
        self._steep = 0
        self._weights: deque[float] = deque(maxlen=WITHIN)
        self._skipped = 0  # steps in a row
        self.overflows = 0  # steps in all that fp16 gradients kept from changing anything
        self._pace = Pace()

    def look(self, facts: Facts) -> Iterator[Finding]:
        """What to tell after this step; a finding with ``good`` is the last word on the run."""
        for finding in (
            self._loss(facts), self._gradient(facts), self._weight(facts), self._overflow(facts), self._pace.look(facts)
        ):  # fmt: skip
            if finding is not None:
                yield finding

    def seen(self) -> dict[str, Any]:
        """What later steps are compared with, as plain values. Their pace is left out: a continuation may be on
        another machine."""
        return {
            "pairs": [[pair.step, pair.loss, pair.baseline] for pair in self._pairs],
            "gradients": list(self._gradients),
            "overflows": self.overflows,
            "weights": [norm for norm in self._weights if math.isfinite(norm)],
        }

    def recall(self, seen: dict[str, Any]) -> None:
        """Go on from what was seen before.

        Raises:
            Exception: of any kind, if :meth:`seen` didn't make it.
        """
        pairs = [Facts(int(step), float(loss), float(base)) for step, loss, base in seen["pairs"]]
        gradients, weights = (list(map(float, seen[name])) for name in ("gradients", "weights"))
        self.overflows = int(seen["overflows"])
        self._pairs.extend(pairs)
        self._gradients.extend(gradients)
        self._weights.extend(weights)

    def new_pace(self) -> None:
        """Steps take longer from here on, and should."""
        self._pace = Pace()

    def _loss(self, facts: Facts) -> Finding | None:
        if not math.isfinite(facts.baseline):
            self.suspicious = facts.loss > SUSPECT * facts.expected
            return None
        self._pairs.append(facts)
        ours, base = (sum(getattr(pair, name) for pair in self._pairs) for name in ("loss", "baseline"))
        self.suspicious = facts.loss > SUSPECT * facts.baseline or ours > SUSPECT * base
        if len(self._pairs) < PAIRS or ours <= FAR * base:
            return None
        first = next(pair.step for pair in self._pairs if pair.loss > SUSPECT * pair.baseline)
        return Finding(
            "loss",
            f"Since step {first} the loss is far above the base model's at the same noise ({ours / PAIRS:.3g}, not "
            f"{base / PAIRS:.3g}): the training has diverged.",
            "Lower the learning rate.",
            first - 2,  # the weights that step ``first`` began with are the first bad ones
        )

    def _gradient(self, facts: Facts) -> Finding | None:
        if len(self._gradients) >= WITHIN and facts.grad_norm > STEEP * median(self._gradients):
            self._steep += 1
        else:
            self._steep = 0
            if math.isfinite(facts.grad_norm):
                self._gradients.append(facts.grad_norm)
        if self._steep < IN_A_ROW:
            return None
        first = facts.step - IN_A_ROW + 1
        return Finding(
            "gradient",
            f"Since step {first} the gradients are over {STEEP:.0f} times as large as before: the training has "
            "diverged.",
            "Lower the learning rate.",
            first - 2,
        )

    def _weight(self, facts: Facts) -> Finding | None:
        self._weights.append(facts.weight_norm)
        least = min(self._weights)
        if self._from_zero or not facts.weight_norm > GROWN * least:
            return None
        sound = next(n for n, norm in enumerate(self._weights) if norm > MOVED * least)
        first = facts.step - len(self._weights) + 1 + sound
        return Finding(
            "weights",
            f"Since step {first} the LoRA's weights have become {facts.weight_norm / least:.0f} times as large: the "
            "training has diverged.",
            "Lower the learning rate.",
            first - 2,  # the weights that step ``first`` began with are the first bad ones
        )

    def _overflow(self, facts: Facts) -> Finding | None:
        self._skipped = self._skipped + 1 if facts.skipped else 0
        self.overflows += facts.skipped
        if self._skipped != MOST_SKIPPED:
            return None
        return Finding(
            "skipped",
            f"fp16 gradients have overflowed in {MOST_SKIPPED} steps in a row, up to step {facts.step}; those steps "
            "changed nothing.",
            "If it goes on, stop and resume with mixed_precision bf16 (or no), or with a lower learning rate.",
        )
