"""A file at a strength is measured by predictions alone, before any picture is made: it costs a picture or two."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from lora_trainer.evaluation.material import Material
from lora_trainer.measures.denoising import DRIFT_TIMESTEPS, GAIN_TIMESTEPS, Rows, bins, drift, log_ratio
from lora_trainer.measures.interval import Estimate, bootstrap
from lora_trainer.measures.probe import Probe
from lora_trainer.measures.weights import Health, health


@dataclass(frozen=True)
class Cell:
    """A file at a strength. Logarithms are natural; what wasn't measured is None.

    gain: of the training images, mean over timesteps: ln(error without ÷ with the LoRA).
    drift: relative change of predictions on the base model's own pictures, without the trigger.
    harm: ln(error with ÷ without the LoRA) on the same.
    """

    file: str
    strength: float
    drift: Estimate
    harm: Estimate
    weights: float
    gain: Estimate | None = None
    bins: tuple[float, ...] = ()  # the gain at each timestep


class Bench:
    """Where files are measured; what the base model does is computed once."""

    def __init__(self, probe: Probe, material: Material) -> None:
        self.probe, self.material = probe, material
        self.known = Rows.of(material.known, DRIFT_TIMESTEPS)
        self.images = Rows.of(material.images, GAIN_TIMESTEPS) if material.images is not None else None
        self.base = self._errors()

    def cell(self, lora: Path, strength: float) -> Cell:
        """Measure a file at a strength.

        Raises:
            FileError: if it can't be read or is for another family.
        """
        with self.probe.at(lora, strength):
            now = self._errors()
        base = self.base
        moved = drift(base["outputs"], now["outputs"]).view(self.known.shape).mean(1)
        return Cell(
            file=lora.name,
            strength=strength,
            drift=bootstrap(moved.numpy(), lambda part: float(part.mean())),
            harm=log_ratio(now["known"], base["known"]),
            weights=self.health(lora).relative * abs(strength),
            gain=log_ratio(base["images"], now["images"]) if self.images else None,
            bins=tuple(bins(base["images"].numpy(), now["images"].numpy())) if self.images else (),
        )

    def health(self, lora: Path) -> Health:
        """Of a file's weights."""
        return health(self.probe.network(lora).modules)

    def _errors(self) -> dict[str, Tensor]:
        probe, known = self.probe, self.known
        outputs = known.outputs(probe)
        target = probe.schedule.target(known.latents, known.noise, known.timesteps, probe.model.info.prediction_type)
        errors = {
            "outputs": outputs,
            "known": (outputs - target).square().mean(dim=(1, 2, 3)).view(known.shape),
        }
        if self.images:
            errors["images"] = self.images.errors(probe)
        return errors
