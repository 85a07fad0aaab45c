"""The adapter types that can be trained and read. One more is one file and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from lora_trainer.config import NetworkConfig
from lora_trainer.errors import FileError
from lora_trainer.network.adapter import Adapter, Control, FileWeights, Kind
from lora_trainer.network.dora import SCALE, SPELLINGS, DoraModule
from lora_trainer.network.dylora import DyLoraModule
from lora_trainer.network.ia3 import Ia3Module
from lora_trainer.network.loha import LohaModule
from lora_trainer.network.lokr import LokrModule
from lora_trainer.network.lora import LoraModule
from lora_trainer.network.lora_fa import LoraFaModule
from lora_trainer.network.norm import NormModule
from lora_trainer.network.oft import OftModule
from lora_trainer.network.targets import Target
from lora_trainer.network.tlora import TLoraModule
from lora_trainer.network.tucker import TuckerModule

ALGOS: dict[str, type[Kind]] = {
    "lora": LoraModule, "lora_fa": LoraFaModule, "tlora": TLoraModule, "dylora": DyLoraModule, "loha": LohaModule,
    "lokr": LokrModule, "ia3": Ia3Module, "diag-oft": OftModule, "oft": OftModule, "boft": OftModule,
}  # fmt: skip
KINDS: tuple[type[Kind], ...] = (LoraModule, TuckerModule, LohaModule, LokrModule, Ia3Module, OftModule, NormModule)
PARTS: dict[str, str] = {
    **dict.fromkeys(SPELLINGS, SCALE),
    **{spelling: part for kind in reversed(KINDS) for spelling, part in kind.FILE_PARTS.items()},
}
"""What may stand behind a module's key in a file -> the part that it is."""


def create(target: Target, rank: int, alpha: float, control: Control, seed: int, options: NetworkConfig) -> Adapter:
    """A new adapter of the configured type, which changes nothing yet."""
    if target.is_norm:
        return NormModule.create(target, rank, alpha, control, seed, options)
    kind = ALGOS[options.algo]
    if kind is LoraModule and options.use_tucker and target.large_kernel:
        kind = TuckerModule
    made = kind.create(target, rank, alpha, control, seed, options)
    return DoraModule(made, options.wd_on_output) if options.dora_wd else made


def read(path: Path, key: str, parts: Mapping[str, Tensor]) -> FileWeights:
    """A module's tensors in a file, checked by the type that they are of: the first that has them all.

    Raises:
        FileError: if they are of no type, or as the type's own reading says.
    """
    inner = {name: tensor for name, tensor in parts.items() if name != SCALE}
    if SCALE in parts and not inner:
        raise FileError(f"{path} is incomplete: {key} has {SCALE} without the weights that it scales.")
    kind = next((kind for kind in KINDS if inner.keys() <= set(kind.FILE_PARTS.values())), None)
    if kind is None:
        raise FileError(f"{path} can't be read: {key} mixes {', '.join(sorted(inner))}; train or copy it again.")
    weights = kind.read(path, key, inner)
    return DoraModule.wrap(path, key, parts[SCALE], weights) if SCALE in parts else weights
