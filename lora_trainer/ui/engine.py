"""The parts of the engine that a check, a run or a test needs, imported by one thread at a time.

Two threads that import modules which need each other can meet half-made ones: Check and Train, pressed soon after the
page was loaded, did so. They import late because the WebUI's start mustn't wait for it.
"""

from __future__ import annotations

import threading
from importlib import import_module

PARTS = (
    "lora_trainer.dataset.summary", "lora_trainer.kohya", "lora_trainer.training.run",
    "lora_trainer.evaluation.sweep", "lora_trainer.evaluation.report", "lora_trainer.ui.result",
    "transformers",  # imports its own parts late, from whichever thread asks first
)  # fmt: skip

importing = threading.RLock()  # for whoever imports something else of weight, such as a host


def load() -> None:
    """Import all parts; afterwards no thread imports any of them."""
    with importing:
        for name in PARTS:
            import_module(name)
