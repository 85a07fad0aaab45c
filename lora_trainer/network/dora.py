"""DoRA (Liu et al. 2024, https://arxiv.org/abs/2402.09353): magnitude and direction of the weight trained apart.

With W the frozen weight and ΔW the change of a LoRA, LoHa or LoKr, the layer has m · (W + ΔW) / ‖W + ΔW‖. The norm is
taken for each input (over outputs and kernel), as AUTOMATIC1111 1.10 reads it, or for each output. At a strength s the
layer has W + s · (that − W).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lora_trainer.errors import FileError
from lora_trainer.network.adapter import Adapter, Control, FileWeights
from lora_trainer.network.targets import Target, base_weight
from lora_trainer.network.weight import WeightAdapter, finite_parts

SCALE = "dora_scale"
SPELLINGS = (SCALE, "lora_magnitude_vector", "lora_magnitude_vector.weight")  # LyCORIS, peft, peft


@dataclass(frozen=True)
class DoraWeights:
    """One module of a file, in fp32: the magnitudes, and the weights of the type below."""

    inner: FileWeights
    magnitude: Tensor

    @property
    def label(self) -> str:
        """What messages call the type."""
        return f"DoRA ({self.inner.label})"

    @property
    def rank(self) -> int:
        """Of the type below."""
        return self.inner.rank

    @property
    def alpha(self) -> float:
        """Of the type below."""
        return self.inner.alpha

    @property
    def input_width(self) -> int:
        """Of the type below."""
        return self.inner.input_width

    def parts(self) -> dict[str, Tensor]:
        """See :class:`lora_trainer.network.adapter.FileWeights`."""
        return {**self.inner.parts(), SCALE: self.magnitude}

    def change(self) -> None:
        """It depends on the weight."""

    def times(self, factor: float) -> None:
        """There is no DoRA at another strength."""

    def adapter(self, target: Target, control: Control, path: Path) -> DoraModule:
        """See :class:`lora_trainer.network.adapter.FileWeights`."""
        on_output = _on_output(self.magnitude, target, path)
        made = DoraModule(self.inner.adapter(target, control, path), on_output)
        made.magnitude.data.copy_(self.magnitude.reshape(made.magnitude.shape))
        return made


class DoraModule(WeightAdapter):
    """An adapter with a magnitude for each input, ``dora_scale`` [1, in(, 1, 1)], or for each output [out, 1(, 1, 1)].

    At first it is the frozen weight's norm, so nothing is changed.
    """

    LABEL = "DoRA"

    def __init__(self, inner: Adapter, on_output: bool) -> None:
        super().__init__(inner.target, inner.rank, inner.alpha, inner.control)
        self.inner = inner
        others = range(1, len(self.target.shape)) if on_output else (0, *range(2, len(self.target.shape)))
        self.over = tuple(others)
        magnitude = nn.Parameter(_norm(base_weight(self.target).float(), self.over).cpu())
        self.weights = {**inner.weights, SCALE: magnitude}
        self.LORA_PLUS = inner.LORA_PLUS  # type: ignore[misc]

    @property
    def magnitude(self) -> nn.Parameter:
        """m."""
        return self.weights[SCALE]

    @property
    def label(self) -> str:
        """What messages call the type."""
        return f"DoRA ({self.inner.label})"

    @property
    def limited(self) -> Adapter:
        """The norm limit holds for ΔW, as in LyCORIS."""
        return self.inner

    def to(self, device: torch.device | str) -> None:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        self.inner.to(device)
        super().to(device)

    def change(self) -> Tensor:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        return self._decomposed(self.inner.change())

    def trained_change(self) -> Tensor:
        """See :class:`lora_trainer.network.weight.WeightAdapter`: rows of ΔW are dropped."""
        return self._decomposed(self.kept_rows(self.inner.change()))

    def _decomposed(self, change: Tensor) -> Tensor:
        weight = base_weight(self.target).detach().to(change)
        moved = weight + change
        return moved * (self.magnitude / _norm(moved, self.over)) - weight

    @torch.no_grad()
    def shrink(self, ratio: Tensor) -> None:
        """Of ΔW; the magnitudes stay."""
        self.inner.shrink(ratio)

    @classmethod
    def wrap(cls, path: Path, key: str, magnitude: Tensor, inner: FileWeights) -> DoraWeights:
        """The module of a file that has magnitudes beside another type's weights.

        Raises:
            FileError: if they aren't finite or of an impossible shape.
        """
        (read, _) = finite_parts(path, key, {SCALE: magnitude})
        tensor = read[SCALE]
        if tensor.dim() == 1:  # peft's
            tensor = tensor[:, None]
        if tensor.dim() not in (2, 4) or tensor.numel() != max(tensor.shape[:2]):
            raise FileError(f"{path} is no DoRA that can be read: {key} has {SCALE} {tuple(magnitude.shape)}.")
        return DoraWeights(inner, tensor)

    @torch.no_grad()
    def copy_from(self, weights: DoraWeights, path: Path) -> None:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        on_output = _on_output(weights.magnitude, self.target, path)
        if on_output != (0 not in self.over):
            raise FileError(
                f"{path} has a magnitude for each {'output' if on_output else 'input'} ({self.key}); "
                f"set wd_on_output to {str(on_output).lower()}."
            )
        self.inner.copy_from(weights.inner, path)
        self.magnitude.copy_(weights.magnitude.reshape(self.magnitude.shape))

    def file_parts(self) -> dict[str, Tensor]:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        return {**self.inner.file_parts(), SCALE: self.magnitude.detach()}

    @torch.no_grad()
    def take_parts(self, parts: Mapping[str, Tensor]) -> None:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        self.inner.take_parts(parts)
        self.magnitude.copy_(parts[SCALE].view(self.magnitude.shape))


def _norm(weight: Tensor, over: tuple[int, ...]) -> Tensor:
    """Norms over these dimensions, which stay with size 1; never 0, so that nothing is divided by it."""
    return torch.linalg.vector_norm(weight, dim=over, keepdim=True).clamp(min=1e-12)


def _on_output(magnitude: Tensor, target: Target, path: Path) -> bool:
    """Whether magnitudes of a file are for each output.

    Raises:
        FileError: if they are of another width than the weight.
    """
    out, inputs = target.shape[:2]
    if tuple(magnitude.shape[:2]) == (1, inputs):
        return False
    if tuple(magnitude.shape[:2]) == (out, 1):
        return True
    raise FileError(
        f"{path} doesn't fit this model: {target.key} has {magnitude.numel()} magnitudes, for a weight of {out} "
        f"outputs and {inputs} inputs; use a DoRA for the same model family."
    )
