"""What a run is: one table of typed options, its groups, checks, presets and documentation."""

from lora_trainer.config.dataset import DatasetConfig
from lora_trainer.config.groups import (
    CaptionConfig,
    Group,
    LossConfig,
    OptimizerConfig,
    SampleConfig,
    SaveConfig,
    ScheduleConfig,
)
from lora_trainer.config.memory import MemoryConfig
from lora_trainer.config.network import NetworkConfig
from lora_trainer.config.run import MIGRATIONS, OPTIONS, VERSION, OptionRow, RunConfig, option_row, parse_assignments

__all__ = [
    "MIGRATIONS", "OPTIONS", "VERSION", "CaptionConfig", "DatasetConfig", "Group", "LossConfig", "MemoryConfig",
    "NetworkConfig", "OptimizerConfig", "OptionRow", "RunConfig", "SampleConfig", "SaveConfig", "ScheduleConfig",
    "option_row", "parse_assignments",
]  # fmt: skip
