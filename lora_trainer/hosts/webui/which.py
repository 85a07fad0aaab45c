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


def webui_host() -> WebUIHost:
    """The host for this process.

    Raises:
        UnsupportedModelError: in a WebUI whose models can't be trained in memory; names it.
    """
    if _there("modules_forge") and (_there("backend.nn.unet") or _there("ldm_patched.modules.model_patcher")):
        from lora_trainer.hosts.forge.host import ForgeHost

        return ForgeHost()
    if _there("modules_forge") or _there("ldm_patched") or not _there("modules.sd_hijack"):
        raise UnsupportedModelError(_refusal("an unknown WebUI"))
    from lora_trainer.hosts.a1111.host import A1111Host

    return A1111Host()


def _refusal(name: str) -> str:
    return (
        f"This WebUI is {name}, whose models can't be trained in memory; use AUTOMATIC1111's WebUI or Forge Neo, or "
        "python -m lora_trainer train on the command line."
    )


def _there(package: str) -> bool:
    try:
        return package in sys.modules or importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):  # the package above it isn't there, or has no spec
        return False
