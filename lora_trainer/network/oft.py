"""OFT (Qiu et al. 2023, https://arxiv.org/abs/2306.07280; LyCORIS' Diag-OFT): the outputs of a layer are rotated.

The outputs are cut into blocks; each block of W is multiplied by an orthogonal R = (I + Q)(I − Q)⁻¹ (Cayley) with
Q = B − Bᵀ skew, so that angles between the outputs of a block, and their lengths, stay. At first Q is zero. The rank is
the blocks' size, as in LyCORIS; there is no alpha (a file's alpha is the constraint on ‖Q‖, which isn't trained here).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn

from lora_trainer.config import NetworkConfig
from lora_trainer.errors import FileError
from lora_trainer.network.adapter import Control, Kind
from lora_trainer.network.lokr import split
from lora_trainer.network.targets import Target, base_weight
from lora_trainer.network.weight import WeightAdapter, finite_parts

BLOCKS = "oft_blocks"


@dataclass(frozen=True)
class OftWeights:
    """One module of a file, in fp32: B [blocks, size, size]."""

    blocks: Tensor
    alpha: float = 1.0
    input_width: int = 0  # not in the file
    label: str = "OFT"

    @property
    def rank(self) -> int:
        """The blocks' size."""
        return int(self.blocks.shape[1])

    def parts(self) -> dict[str, Tensor]:
        """See :class:`lora_trainer.network.adapter.FileWeights`."""
        return {BLOCKS: self.blocks, "alpha": torch.zeros((), dtype=torch.float64)}

    def change(self) -> None:
        """It depends on the weight."""

    def times(self, factor: float) -> None:
        """A rotation by a multiple isn't a multiple of the change."""

    def adapter(self, target: Target, control: Control, path: Path) -> OftModule:
        """See :class:`lora_trainer.network.adapter.FileWeights`."""
        made = OftModule(target, self.rank, control)
        made.copy_from(self, path)
        return made


class OftModule(WeightAdapter, Kind):
    """The rotation of one weight's outputs."""

    FILE_PARTS = MappingProxyType({BLOCKS: BLOCKS, "alpha": "alpha"})
    LABEL = "OFT"

    def __init__(self, target: Target, rank: int, control: Control) -> None:
        """``rank``: wanted size of the blocks; the nearest that divides the outputs is taken, as LyCORIS does."""
        size, count = split(target.shape[0], rank)
        super().__init__(target, size, 1.0, control)
        self.weights = {BLOCKS: nn.Parameter(torch.zeros(count, size, size))}

    @classmethod
    def create(
        cls, target: Target, rank: int, alpha: float, control: Control, seed: int, options: NetworkConfig
    ) -> OftModule:
        """See :class:`lora_trainer.network.adapter.Kind`."""
        return cls(target, rank, control)

    @classmethod
    def read(cls, path: Path, key: str, parts: Mapping[str, Tensor]) -> OftWeights:
        """See :class:`lora_trainer.network.adapter.Kind`."""
        tensors, constraint = finite_parts(path, key, parts)
        blocks = tensors.get(BLOCKS)
        if blocks is None or blocks.dim() != 3 or blocks.shape[1] != blocks.shape[2] or not blocks.numel():
            raise FileError(f"{path} is no OFT that can be read: {key} lacks square blocks (BOFT can't be read).")
        if constraint:
            raise FileError(
                f"{path} is an OFT with a constraint ({constraint:g} at {key}); only plain ones can be read."
            )
        return OftWeights(blocks)

    @torch.no_grad()
    def copy_from(self, weights: OftWeights, path: Path) -> None:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        own = self.weights[BLOCKS]
        if weights.blocks.shape != own.shape:
            raise FileError(
                f"{path} doesn't fit this model: {self.key} has blocks {tuple(weights.blocks.shape)}, not "
                f"{tuple(own.shape)}; use an OFT for the same model family, and network_dim {weights.rank}."
            )
        own.copy_(weights.blocks)

    def file_parts(self) -> dict[str, Tensor]:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        return {BLOCKS: self.weights[BLOCKS].detach(), "alpha": torch.zeros((), dtype=torch.float64)}

    @torch.no_grad()
    def take_parts(self, parts: Mapping[str, Tensor]) -> None:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        self.weights[BLOCKS].copy_(parts[BLOCKS])

    def change(self) -> Tensor:
        """(R − I)ᵀ W block by block, which is how LyCORIS and AUTOMATIC1111 turn it."""
        blocks = self.weights[BLOCKS]
        skew = blocks - blocks.transpose(1, 2)
        eye = torch.eye(self.rank, dtype=skew.dtype, device=skew.device)
        turned = torch.linalg.solve(eye - skew, eye + skew) - eye  # both factors are functions of Q: they commute
        weight = base_weight(self.target).detach().to(blocks).view(len(blocks), self.rank, -1)
        return torch.einsum("knm,kni->kmi", turned, weight).reshape(self.target.shape)

    @torch.no_grad()
    def shrink(self, ratio: Tensor) -> None:
        """A smaller turn; the change is smaller by about that ratio, exactly only for small turns."""
        self.weights[BLOCKS].mul_(ratio)
