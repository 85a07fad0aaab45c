"""Named groups of tensors in memory, and on disk on request; what the latent and caption caches keep."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import load_file, save_file

from lora_trainer.files import replaced

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)


class TensorStore:
    """Tensors by key. With a directory every entry is also one file there, and is found again by later runs.

    Args:
        directory: where to keep entries; ``None`` for memory only.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory, self.in_memory = directory, True
        self._entries: dict[str, dict[str, Tensor]] = {}
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)

    def __contains__(self, key: str) -> bool:
        if key in self._entries:
            return True
        if self.directory is None or not self._path(key).is_file():
            return False
        try:
            tensors = load_file(self._path(key))
        except Exception as error:  # safetensors raises its own type, OSError or MemoryError: any means "not there"
            log.warning("Ignoring the unreadable cache file %s (%s); it will be written again.", self._path(key), error)
            return False
        if self.in_memory:
            self._entries[key] = tensors
        return True

    def __getitem__(self, key: str) -> dict[str, Tensor]:
        if key in self._entries:
            return self._entries[key]
        if self.directory is None:
            raise KeyError(key)
        return load_file(self._path(key))

    def __setitem__(self, key: str, tensors: dict[str, Tensor]) -> None:
        tensors = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
        if self.directory is not None:
            with replaced(self._path(key)) as temporary:
                save_file(tensors, temporary)
        if self.in_memory:
            self._entries[key] = tensors

    def move_to(self, directory: Path) -> None:
        """Keep everything on disk only, from now on."""
        directory.mkdir(parents=True, exist_ok=True)
        entries, self._entries = self._entries, {}
        self.directory, self.in_memory = directory, False
        for key, tensors in entries.items():
            self[key] = tensors

    def _path(self, key: str) -> Path:
        assert self.directory is not None
        return self.directory / f"{key}.safetensors"
