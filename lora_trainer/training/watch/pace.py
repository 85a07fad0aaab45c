"""Whether the steps have suddenly become several times slower, as they do when a card's memory spills over."""

from __future__ import annotations

from collections import deque

from lora_trainer.training.watch.facts import Facts, Finding

WARM_UP = 3  # steps that don't count: kernels are chosen, memory is allocated
ENOUGH, RECENT = 10, 100  # steps that tell what is usual
SLOWER = 3.0
IN_A_ROW = 5  # slow steps; fewer may be another program's, or one large picture's


class Pace:
    """Compares each step with nine of ten before it, so that a few large pictures among small ones don't count.

    Time between steps (samples, saving, a pause, whoever else is served by the host) is no part of a step's time.
    """

    def __init__(self) -> None:
        self._usual: deque[float] = deque(maxlen=RECENT)
        self._seen = 0
        self._slow: list[float] = []

    def look(self, facts: Facts) -> Finding | None:
        """What to tell after this step."""
        self._seen += 1
        if self._seen <= WARM_UP:
            return None
        usual = sorted(self._usual)[len(self._usual) * 9 // 10] if len(self._usual) >= ENOUGH else float("inf")
        if facts.seconds <= SLOWER * usual:
            self._slow = []
            self._usual.append(facts.seconds)
            return None
        self._slow.append(facts.seconds)
        if len(self._slow) < IN_A_ROW:
            return None
        now, first = sorted(self._slow)[IN_A_ROW // 2], facts.step - IN_A_ROW + 1
        self._usual.clear()  # this is what is usual from here on
        self._slow = []
        return Finding(
            "slow",
            f"Since step {first} a step takes {now:.2g} s, {now / usual:.0f} times as long as before.",
            "If the GPU's memory is full, its driver uses the main memory, which is far slower: close other programs, "
            "or stop, switch gradient_checkpointing on, and resume.",
        )
