"""The WebUI's own LoRAs: taking leftovers out of the weights, making new files known, counting what it applies.

The built-in Lora extension merges networks into the weights and leaves them there after a generation. It is reached as
the module ``networks``, which it puts into ``sys.modules`` when it is enabled.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from modules import processing
from torch import nn

from lora_trainer.errors import FileError

PATCHED = (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm, nn.MultiheadAttention)


def extension() -> Any | None:
    """The Lora extension's module, or None if it is disabled."""
    found = sys.modules.get("networks")
    return found if hasattr(found, "network_apply_weights") else None


def restore_base(model: Any) -> None:
    """Empty the list of active networks and take what they changed out of every weight; exact, from their backups."""
    networks = extension()
    if networks is None:
        return
    with torch.no_grad():
        networks.load_networks([])
        for module in _modules(model):
            networks.network_apply_weights(module)


def merged(model: Any) -> int:
    """How many modules still hold something of a network."""
    return sum(bool(getattr(module, "network_current_names", ())) for module in _modules(model))


def refresh(model: Any | None, changed: Sequence[Path]) -> None:
    """Make files known, and the next generation read changed ones anew: weights, and conditioning made with them."""
    networks = extension()
    if networks is None:
        return
    stale = {path.resolve() for path in changed}
    for name, network in list(networks.networks_in_memory.items()):
        if Path(network.network_on_disk.filename).resolve() in stale:
            networks.networks_in_memory.pop(name, None)
    networks.list_available_networks()
    if changed and model is not None:
        restore_base(model)  # a weight that holds "NAME at 1.0" would not be made again for the new file
    if changed:
        forget_conditioning()


def forget_conditioning() -> None:
    """Drop the WebUI's cached prompts; their key holds the network's name, not its content."""
    processing.StableDiffusionProcessing.cached_c = [None, None]
    processing.StableDiffusionProcessing.cached_uc = [None, None]
    processing.StableDiffusionProcessingTxt2Img.cached_hr_c = [None, None]
    processing.StableDiffusionProcessingTxt2Img.cached_hr_uc = [None, None]


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
            raise FileError(f"The WebUI doesn't find the LoRA {name!r} of {prompt!r}; it must lie in its Lora folder.")


def applied_modules(path: Path) -> int | None:
    """How many modules of a LoRA file the WebUI's loader matches with the loaded model."""
    networks = extension()
    if networks is None:
        return None
    known = networks.available_networks.get(path.stem)
    if known is None or Path(known.filename).resolve() != path.resolve():
        return None
    with torch.random.fork_rng(devices=[]):  # its modules are initialised at random before they get their weights
        return len(networks.load_network(path.stem, known).modules)


def _modules(model: Any) -> Iterator[nn.Module]:
    """The modules that the extension may have changed."""
    for root in (model.model, model.cond_stage_model):
        yield from (module for module in root.modules() if isinstance(module, PATCHED))
