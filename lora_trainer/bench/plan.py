"""What to measure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lora_trainer.config import RunConfig
from lora_trainer.errors import ConfigError

WARM_UP = 1  # steps of each that aren't counted: memory is allocated, kernels are chosen


@dataclass(frozen=True)
class BenchPlan:
    """What to measure."""

    checkpoint: Path | None = None  # None for a random UNet of ``size``
    size: str = "sd15"
    resolution: int = 256  # pixels of both sides
    batch: int = 1
    rank: int = 16
    steps: int = 5
    precision: str = "no"
    checkpointing: bool = False
    peer: bool = True

    def __post_init__(self) -> None:
        if self.resolution < 64 or self.resolution % 64:
            raise ConfigError(f"--resolution can't be {self.resolution}; give a multiple of 64.")
        for name in ("batch", "rank", "steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name} can't be {getattr(self, name)}; give at least 1.")

    @property
    def config(self) -> RunConfig:
        """The same as run settings: UNet only, AdamW, everything else by default."""
        return RunConfig().replace(
            network_dim=self.rank,
            network_alpha=self.rank,
            network_train_unet_only=True,
            seed=1,
            lr_scheduler="constant",
            max_train_steps=1_000_000,
            mixed_precision=self.precision,
            gradient_checkpointing=self.checkpointing,
        )
