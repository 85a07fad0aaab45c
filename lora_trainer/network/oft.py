"""OFT and BOFT (Qiu et al. 2023, https://arxiv.org/abs/2306.07280; Liu et al. 2023, https://arxiv.org/abs/2311.06243;
LyCORIS' Diag-OFT and BOFT, sd-scripts' OFT): the outputs of a layer are rotated.

The outputs are cut into blocks; each block of W is multiplied by an orthogonal R = (I + Q)(I − Q)⁻¹ (Cayley) with
Q = B − Bᵀ skew, so that angles between the outputs of a block, and their lengths, stay. BOFT does so several times, and
between two times the outputs change places like a butterfly, so that all have to do with all. At first Q is zero.
A constraint limits ‖Q‖ over all blocks to itself times the outputs; files have it as alpha. Outputs can be scaled
afterwards (``rescale``).

The rank is the blocks' size, as in LyCORIS; for sd-scripts' ``networks.oft`` it is their number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn

from lora_trainer.config import NetworkConfig
from lora_trainer.errors import ConfigError, FileError
from lora_trainer.network.adapter import Control, Kind
from lora_trainer.network.lokr import split
from lora_trainer.network.targets import Target, base_weight
from lora_trainer.network.weight import WeightAdapter, finite_parts

BLOCKS, RESCALE = "oft_blocks", "rescale"


@dataclass(frozen=True)
class OftWeights:
    """One module of a file, in fp32: B [blocks, size, size], of BOFT [times, blocks, size, size]; rescale [out, 1…]."""

    blocks: Tensor
    constraint: float = 0.0
    rescale: Tensor | None = None
    alpha: float = 1.0
    input_width: int = 0  # not in the file

    @property
    def label(self) -> str:
        """What messages call the type."""
        return _label(self.blocks)

    @property
    def rank(self) -> int:
        """The blocks' size."""
        return int(self.blocks.shape[-1])

    def parts(self) -> dict[str, Tensor]:
        """See :class:`lora_trainer.network.adapter.FileWeights`."""
        return _parts(self.blocks, self.constraint, self.rescale)

    def change(self) -> None:
        """It depends on the weight."""

    def times(self, factor: float) -> None:
        """A rotation by a multiple isn't a multiple of the change."""

    def adapter(self, target: Target, control: Control, path: Path) -> OftModule:
        """See :class:`lora_trainer.network.adapter.FileWeights`."""
        if self.blocks.shape[-3] * self.rank != target.shape[0]:
            raise FileError(
                f"{path} doesn't fit this model: {target.key} has {target.shape[0]} outputs, and the file blocks "
                f"{tuple(self.blocks.shape)}; use an {self.label} for the same model family."
            )
        made = OftModule(target, self.blocks.shape, control, self.constraint, self.rescale is not None)
        made.copy_from(self, path)
        return made


class OftModule(WeightAdapter, Kind):
    """The rotation of one weight's outputs."""

    FILE_PARTS = MappingProxyType({BLOCKS: BLOCKS, RESCALE: RESCALE, "alpha": "alpha"})
    LABEL = "OFT"

    def __init__(
        self,
        target: Target,
        shape: tuple[int, ...],
        control: Control,
        constraint: float = 0.0,
        rescaled: bool = False,
    ) -> None:
        """``shape`` of B; a ``constraint`` of 0 is none."""
        super().__init__(target, shape[-1], 1.0, control)
        self.constraint = constraint
        self.weights = {BLOCKS: nn.Parameter(torch.zeros(shape))}
        if rescaled:
            self.weights[RESCALE] = nn.Parameter(torch.ones(target.shape[0], *(1 for _ in target.shape[1:])))

    @classmethod
    def create(
        cls, target: Target, rank: int, alpha: float, control: Control, seed: int, options: NetworkConfig
    ) -> OftModule:
        """See :class:`lora_trainer.network.adapter.Kind`."""
        shape = _SHAPES[options.algo](target.shape[0], rank)
        return cls(target, shape, control, options.constraint, options.rescaled)

    @classmethod
    def read(cls, path: Path, key: str, parts: Mapping[str, Tensor]) -> OftWeights:
        """See :class:`lora_trainer.network.adapter.Kind`."""
        tensors, constraint = finite_parts(path, key, parts)
        blocks = tensors.get(BLOCKS)
        if blocks is None or blocks.dim() not in (3, 4) or blocks.shape[-1] != blocks.shape[-2] or not blocks.numel():
            raise FileError(f"{path} is no OFT that can be read: {key} lacks square blocks.")
        times, count = (len(blocks), blocks.shape[1]) if blocks.dim() == 4 else (1, 1)
        if (blocks.shape[-1] % 2 and times > 1) or count % 2 ** (times - 1):
            raise FileError(f"{path} is no BOFT that can be read: {key} has blocks {tuple(blocks.shape)}.")
        rescale = tensors.get(RESCALE)
        outputs = blocks.shape[-3] * blocks.shape[-1]
        if rescale is not None and rescale.numel() != outputs:
            raise FileError(
                f"{path} is no OFT that can be read: {key} has {rescale.numel()} scales for {outputs} outputs."
            )
        return OftWeights(blocks, constraint or 0.0, rescale)

    @property
    def label(self) -> str:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        return _label(self.weights[BLOCKS])

    @torch.no_grad()
    def copy_from(self, weights: OftWeights, path: Path) -> None:
        """See :class:`lora_trainer.network.adapter.Adapter`; what the file's constraint does is put into the blocks."""
        own = self.weights[BLOCKS]
        if weights.blocks.shape != own.shape:
            raise FileError(
                f"{path} doesn't fit this model: {self.key} has blocks {tuple(weights.blocks.shape)}, not "
                f"{tuple(own.shape)}; use an OFT for the same model family, and network_dim {weights.rank}."
            )
        if weights.rescale is not None and RESCALE not in self.weights:
            raise FileError(f"{path} is a rescaled OFT; switch rescaled on to continue it.")
        own.copy_(weights.blocks)
        if weights.constraint != self.constraint:
            own.mul_(_shortened(own - own.mT, weights.constraint * self.target.shape[0]))
        if weights.rescale is not None:
            self.weights[RESCALE].copy_(weights.rescale.view_as(self.weights[RESCALE]))

    def file_parts(self) -> dict[str, Tensor]:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        rescale = self.weights[RESCALE].detach() if RESCALE in self.weights else None
        return _parts(self.weights[BLOCKS].detach(), self.constraint, rescale)

    @torch.no_grad()
    def take_parts(self, parts: Mapping[str, Tensor]) -> None:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        for name, weight in self.weights.items():
            weight.copy_(parts[name])

    def change(self) -> Tensor:
        """The turned weight less the weight; blocks by Rᵀ and butterflies by R, as LyCORIS and AUTOMATIC1111 turn."""
        blocks = self.weights[BLOCKS]
        skew = blocks - blocks.mT
        if self.constraint:
            skew = skew * _shortened(skew, self.constraint * self.target.shape[0])
        eye = torch.eye(self.rank, dtype=skew.dtype, device=skew.device)
        turn = torch.linalg.solve(eye - skew, eye + skew)  # both factors are functions of Q: they commute
        weight = base_weight(self.target).detach().to(blocks)
        rows = weight.flatten(1)
        if blocks.dim() == 4:
            change = _butterfly(turn, rows) - rows
        else:
            change = torch.einsum("knm,kni->kmi", turn - eye, rows.view(len(blocks), self.rank, -1))
        change = change.reshape(self.target.shape)
        if RESCALE in self.weights:
            scale = self.weights[RESCALE]
            change = scale * change + (scale - 1) * weight
        return change

    @torch.no_grad()
    def shrink(self, ratio: Tensor) -> None:
        """A smaller turn; the change is smaller by about that ratio, exactly only for small turns."""
        self.weights[BLOCKS].mul_(ratio)
        if RESCALE in self.weights:
            self.weights[RESCALE].sub_(1).mul_(ratio).add_(1)


def _label(blocks: Tensor) -> str:
    return "BOFT" if blocks.dim() == 4 else "OFT"


def _parts(blocks: Tensor, constraint: float, rescale: Tensor | None) -> dict[str, Tensor]:
    scales = {} if rescale is None else {RESCALE: rescale}
    return {BLOCKS: blocks, **scales, "alpha": torch.tensor(constraint, dtype=torch.float64)}


def _shortened(skew: Tensor, limit: float) -> Tensor:
    """The factor that brings ‖Q‖ down to ``limit``; 1 where it isn't above, or there is none (0)."""
    if not limit:
        return skew.new_ones(())
    return (limit / skew.norm().clamp(min=1e-8)).clamp(max=1)


def _butterfly(turn: Tensor, rows: Tensor) -> Tensor:
    """``rows`` [out, n] turned by each R [blocks, size, size] of ``turn`` in order.

    For the i-th, the outputs are taken in an order in which those that stand 2ⁱ·size/2 apart are neighbours.
    """
    times, count, size, _ = turn.shape
    order = torch.arange(len(rows), device=rows.device)
    for number in range(times):
        step = order.view(-1, 2, 2**number * (size // 2)).mT.flatten()
        turned = torch.einsum("kij,kjn->kin", turn[number], rows[step].view(count, size, -1)).flatten(0, 1)
        rows = turned[step.argsort()]
    return rows


def _sized(outputs: int, size: int) -> tuple[int, ...]:
    """Of Diag-OFT: the size that divides the outputs nearest to the wanted one, as LyCORIS finds it."""
    found, count = split(outputs, size)
    return count, found, found


def _counted(outputs: int, count: int) -> tuple[int, ...]:
    """Of sd-scripts' OFT: so many blocks."""
    if outputs % count:
        raise ConfigError(
            f"network_dim {count} can't be the number of OFT's blocks, because a layer has {outputs} outputs; choose a "
            "power of two, such as 4."
        )
    return count, outputs // count, outputs // count


def _crossed(outputs: int, size: int) -> tuple[int, ...]:
    """Of BOFT: the fewest blocks, a power of two of them, of an even size up to the wanted one, else the smallest."""
    counts = [2**n for n in range(outputs.bit_length()) if outputs % 2 ** (n + 1) == 0]
    if not counts:
        raise ConfigError(
            f"BOFT can't train a layer with {outputs} outputs, an odd number; choose another lycoris_preset."
        )
    count = next((count for count in counts if outputs // count <= size), counts[-1])
    return count.bit_length(), count, outputs // count, outputs // count


_SHAPES = {"diag-oft": _sized, "oft": _counted, "boft": _crossed}
