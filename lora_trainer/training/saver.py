"""LoRA files of a run: their names, their metadata, and which of them are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lora_trainer.config import SaveConfig
from lora_trainer.dtypes import DTYPES
from lora_trainer.network.file import write_lora
from lora_trainer.training.events import Event, Saved
from lora_trainer.training.state import Position

if TYPE_CHECKING:
    from lora_trainer.network.network import LoraNetwork


@dataclass
class Saver:
    """Writes ``NAME.safetensors``, ``NAME-000002.safetensors`` (epochs) and ``NAME-step00000100.safetensors``."""

    lora_dir: Path
    name: str
    config: SaveConfig
    metadata: Callable[[str, Position], dict[str, str]]  # of the file's stem and the position
    is_main: bool
    _events: list[Event] = field(default_factory=list)

    @property
    def session(self) -> str:
        """What the files name as their origin."""
        return self.metadata(self.name, Position())["ss_session_id"]

    def path(self, suffix: str = "") -> Path:
        """Where the file of this suffix goes."""
        return self.lora_dir / f"{self.name}{suffix}.safetensors"

    def final(self, network: LoraNetwork, at: Position) -> Path:
        """The result."""
        return self._write(network, self.path(), at, final=True)

    def ema(self, network: LoraNetwork, at: Position) -> Path:
        """The moving average, which the network holds now; one file, written anew at every save."""
        return self._write(network, self.path("-ema"), at)

    def epoch(self, network: LoraNetwork, at: Position) -> Path:
        """The LoRA after this epoch; drops the epoch file that ``save_last_n_epochs`` no longer keeps."""
        path = self._write(network, self.path(f"-{at.epoch:06d}"), at)
        if self.config.save_last_n_epochs:
            old = at.epoch - self.config.save_every_n_epochs * self.config.save_last_n_epochs
            self._drop(self.path(f"-{old:06d}"), at)
        return path

    def step(self, network: LoraNetwork, at: Position) -> Path:
        """The LoRA after this step; drops the step file that lies more than ``save_last_n_steps`` back."""
        path = self._write(network, self.path(f"-step{at.step:08d}"), at)
        if self.config.save_last_n_steps:
            every = self.config.save_every_n_steps
            old = (at.step - self.config.save_last_n_steps - 1) // every * every
            self._drop(self.path(f"-step{old:08d}"), at)
        return path

    def present(self, at: Position) -> tuple[Path, ...]:
        """What the run has saved until this position and is still there."""
        paths = [*(self.lora_dir / name for name in at.saved), self.path()]
        return tuple(path for path in paths if path.is_file())

    def missing(self, at: Position) -> list[str]:
        """A line for each file that the run has saved until this position and that is gone."""
        gone = [name for name in at.saved if not (self.lora_dir / name).is_file()]
        return [f"{name}, which this run saved, isn't in the LoRA folder any more." for name in gone]

    def events(self) -> Iterator[Event]:
        """The events of what was written since the last call."""
        events, self._events = self._events, []
        yield from events

    def _write(self, network: LoraNetwork, path: Path, at: Position, final: bool = False) -> Path:
        if not self.is_main:
            return path
        tensors = network.state_dict(DTYPES[self.config.save_precision])
        write_lora(path, tensors, self.metadata(path.stem, at))
        if not final and path.name not in at.saved:
            at.saved.append(path.name)
        self._events.append(Saved(path, at.step, at.epoch, final))
        return path

    def _drop(self, path: Path, at: Position) -> None:
        if self.is_main and path.name in at.saved:  # only what this run wrote
            path.unlink(missing_ok=True)
            at.saved.remove(path.name)
