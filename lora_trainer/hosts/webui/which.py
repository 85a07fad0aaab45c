"""Which WebUI this process is, found out before anything of an adapter is imported.

An adapter imports modules that only its own WebUI has: on another one that is an ImportError, not an answer.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING

from lora_trainer.errors import UnsupportedModelError

if TYPE_CHECKING:
    from lora_trainer.hosts.webui.host import WebUIHost

FORKS = (  # a package that tells it, and its name; the first that is there counts
    ("ldm_patched", "reForge or an early Forge"),
    ("modules_forge", "Forge, Forge Neo or a relative of them"),
    ("modules.sd_hijack", ""),  # AUTOMATIC1111's own
)


def webui_host() -> WebUIHost:
    """The host for this process.

    Raises:
        UnsupportedModelError: in a WebUI whose models can't be trained in memory; names it.
    """
    found = next((name for package, name in FORKS if _there(package)), "an unknown WebUI")
    if found:
        raise UnsupportedModelError(
            f"This WebUI is {found}, whose models can't be trained in memory yet; use AUTOMATIC1111's WebUI, or "
            "python -m lora_trainer train on the command line."
        )
    from lora_trainer.hosts.a1111.host import A1111Host

    return A1111Host()


def _there(package: str) -> bool:
    try:
        return package in sys.modules or importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):  # the package above it isn't there, or has no spec
        return False
