"""The LoRA files that prompts name: read once, attached while a picture is made."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lora_trainer.hosts.standalone.prompt import LoraTag
from lora_trainer.lora_folder import find_lora
from lora_trainer.network.adapter import Control
from lora_trainer.network.network import LoraNetwork

if TYPE_CHECKING:
    from lora_trainer.hosts.standalone.model import DiffusersModel

logger = logging.getLogger(__name__)


class LoraShelf:
    """The LoRAs of a folder, each kept as read until its file changes or :meth:`forget` is called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[Path, tuple[tuple[int, int], LoraNetwork]] = {}

    def forget(self, changed: Sequence[Path] = ()) -> None:
        """Read files anew at their next use: those in ``changed``, or all."""
        wanted = {path.resolve() for path in changed}
        self._read = {path: kept for path, kept in self._read.items() if wanted and path.resolve() not in wanted}

    def modules(self, path: Path, model: DiffusersModel) -> int:
        """How many modules of a file are applied to the model."""
        return self._network(path, model).count

    @contextmanager
    def attached(self, model: DiffusersModel, tags: Sequence[LoraTag]) -> Iterator[None]:
        """Add the LoRAs of a prompt to the model; a LoRA named twice gets the sum of its strengths.

        Raises:
            FileError: if one doesn't exist (naming the nearest), can't be read, or is for another family.
        """
        strengths: dict[str, tuple[float, float]] = {}
        for tag in tags:
            text, unet = strengths.get(tag.name, (0.0, 0.0))
            strengths[tag.name] = (text + tag.text_encoder, unet + tag.unet)
        with ExitStack() as stack:
            for name, (text, unet) in strengths.items():
                network = self._network(find_lora(name, self.folder), model)
                if text or unet:  # at strength 0 nothing is attached, so nothing can differ
                    stack.enter_context(_at_strength(network, text, unet))
            yield

    def _network(self, path: Path, model: DiffusersModel) -> LoraNetwork:
        status = path.stat()
        stamp = (status.st_mtime_ns, status.st_size)
        kept = self._read.get(path)
        if kept is None or kept[0] != stamp:
            network = LoraNetwork.from_file(path, model.unet, model.text_encoders, model.info).to(model.device)
            for notice in network.notices:
                logger.warning("%s: %s", path.name, notice)
            kept = self._read[path] = (stamp, network)
        return kept[1]


@contextmanager
def _at_strength(network: LoraNetwork, text_encoder: float, unet: float) -> Iterator[None]:
    """Attach with a strength of its own for the text encoders."""
    control = Control(multiplier=text_encoder, training=False)
    mine = [module for module in network.modules if module.target.part == "text_encoder"]
    for module in mine:
        module.control = control
    try:
        with network.inference(unet), network:
            yield
    finally:
        for module in mine:
            module.control = network.control
        control.inputs.clear()
