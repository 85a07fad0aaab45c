"""What we train: LoRA layers, their kohya keys, and the file with metadata."""

from lora_trainer.network.file import LoraFile, read_lora, write_lora
from lora_trainer.network.metadata import DatasetFacts, Progress, build_metadata
from lora_trainer.network.network import LoraNetwork

__all__ = ["DatasetFacts", "LoraFile", "LoraNetwork", "Progress", "build_metadata", "read_lora", "write_lora"]
