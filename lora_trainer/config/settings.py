"""The groups of options together, and what follows from several of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from lora_trainer.config.dataset import DatasetConfig
from lora_trainer.config.groups import (
    CaptionConfig,
    LossConfig,
    OptimizerConfig,
    SampleConfig,
    SaveConfig,
    ScheduleConfig,
)
from lora_trainer.config.memory import MemoryConfig
from lora_trainer.config.network import NetworkConfig


@dataclass(frozen=True)
class Settings:
    """One object per group of the option table; :class:`lora_trainer.config.run.RunConfig` checks them together."""

    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    caption: CaptionConfig = field(default_factory=CaptionConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    save: SaveConfig = field(default_factory=SaveConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)

    @property
    def trains_unet(self) -> bool:
        """Whether the UNet gets a LoRA: not switched off and no zero rate."""
        return not self.network.network_train_text_encoder_only and self.unet_rate > 0

    @property
    def trains_text_encoder(self) -> bool:
        """Whether the text encoders get a LoRA: not switched off and no zero rate."""
        without = self.network.network_train_unet_only or self.network.lycoris_preset.startswith("unet-")
        return not without and self.text_encoder_rate > 0

    @property
    def tunes_text(self) -> bool:
        """Whether captions mean something else after a step: the text encoders or the trigger word are trained."""
        return self.trains_text_encoder or self.network.pivotal_tuning

    @property
    def unet_rate(self) -> float:
        """The UNet's learning rate."""
        return self.optimizer.learning_rate if self.optimizer.unet_lr is None else self.optimizer.unet_lr

    @property
    def text_encoder_rate(self) -> float:
        """The text encoders' learning rate."""
        return (
            self.optimizer.learning_rate if self.optimizer.text_encoder_lr is None else self.optimizer.text_encoder_lr
        )
