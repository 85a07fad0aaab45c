"""``base_weights``: LoRA files that belong to the base model for a run, as frozen networks.

The model's own weights stay as they are, so that there is nothing to put back.
"""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

from lora_trainer.config import NetworkConfig
from lora_trainer.files import given_path
from lora_trainer.hosts.base import TakenModel
from lora_trainer.network.network import LoraNetwork


def networks_beneath(options: NetworkConfig, model: TakenModel) -> list[LoraNetwork]:
    """The networks of ``base_weights``, on the model's device; attach them to have the model that is trained upon.

    Raises:
        FileError: if a file can't be read or is for another model family.
    """
    made = []
    for file, strength in zip_longest(options.base_weights, options.base_weights_multiplier, fillvalue=1.0):
        path = given_path(str(file), "base_weights")
        network = LoraNetwork.from_file(path, model.unet, model.text_encoders, model.info).to(model.device)
        network.multiplier = float(strength)
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        network.notices = [f"base_weights: {notice}" for notice in network.notices]
        made.append(network)
    return made


def files_beneath(options: NetworkConfig) -> tuple[Path, ...]:
    """The files of ``base_weights``."""
    return tuple(given_path(file, "base_weights") for file in options.base_weights)
