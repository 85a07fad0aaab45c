"""The command line on the tiny model, as a program that can be killed: ``tiny_cli.py ARGUMENTS``."""

from __future__ import annotations

import sys
import time
from typing import Any

from support.tiny_host import TinyHost

import lora_trainer.hosts.standalone.host as standalone
from lora_trainer.cli import main
from lora_trainer.training.session import Session

SECONDS = 0.05  # that a step takes at least, so that whoever wants to end it has the time


def slowed(self: Session, *args: Any) -> Any:
    time.sleep(SECONDS)
    return report(self, *args)


report = Session.report
Session.report = slowed  # type: ignore[method-assign]
standalone.DiffusersHost = lambda checkpoint, lora_dir, **options: TinyHost(lora_dir)  # type: ignore[assignment,misc]

if __name__ == "__main__":
    sys.exit(main())
