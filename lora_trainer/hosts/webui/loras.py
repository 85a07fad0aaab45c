"""The WebUI's own list of LoRAs: making new files known, refusing unknown names, counting what it applies.

The built-in Lora extension is reached as the module ``networks``, which it puts into ``sys.modules`` when enabled.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from modules import processing

from lora_trainer.errors import FileError, quoted


def extension() -> Any | None:
    """The Lora extension's module, or None if it is disabled."""
    found = sys.modules.get("networks")
    return found if hasattr(found, "available_networks") else None


def forget(changed: Sequence[Path]) -> bool:
    """Make new files known, and have changed ones read anew; whether weights in use may hold something of the old."""
    networks = extension()
    if networks is None:
        return False
    stale = {path.resolve() for path in changed}
    in_memory = getattr(networks, "networks_in_memory", {})
    for name, network in list(in_memory.items()):
        if Path(network.network_on_disk.filename).resolve() in stale:
            in_memory.pop(name, None)
    forget_files = getattr(getattr(networks, "load_lora_state_dict", None), "cache_clear", None)
    if changed and forget_files is not None:  # some forks keep what they have read, by name
        forget_files()
    networks.list_available_networks()
    if changed:
        forget_conditioning()
    return bool(changed)


def forget_conditioning() -> None:
    """Drop the WebUI's cached prompts; their key holds the network's name, not its content."""
    for holder, names in (
        (processing.StableDiffusionProcessing, ("cached_c", "cached_uc")),
        (processing.StableDiffusionProcessingTxt2Img, ("cached_hr_c", "cached_hr_uc")),
    ):
        for name in names:
            setattr(holder, name, [None] * len(getattr(holder, name)))


def refuse_unknown(prompt: str) -> None:
    """Look up every ``<lora:NAME:…>`` as the extension will; without the extension they mean nothing.

    Raises:
        FileError: names the LoRA that isn't there.
    """
    networks = extension()
    if networks is None:
        return
    for name in re.findall(r"<(?:lora|lyco):([^:>]+)[^>]*>", prompt):
        if name not in networks.available_networks and name not in networks.available_network_aliases:
            raise FileError(
                f"The WebUI doesn't find the LoRA {quoted(name)} of the prompt {quoted(prompt)}; "
                "it must be in the Lora folder."
            )


def known(path: Path) -> Any | None:
    """The extension's entry for a LoRA file; None if it has none, or another file has the name."""
    networks = extension()
    found = None if networks is None else networks.available_networks.get(path.stem)
    return found if found is not None and Path(found.filename).resolve() == path.resolve() else None


def applied_modules(path: Path) -> int | None:
    """How many modules of a LoRA file the WebUI's loader matches with the loaded model."""
    networks, entry = extension(), known(path)
    if networks is None or entry is None:
        return None
    with torch.random.fork_rng(devices=[]):  # its modules are initialised at random before they get their weights
        return len(networks.load_network(path.stem, entry).modules)
