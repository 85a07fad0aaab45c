"""A program that trains the tiny model: ``train_tiny.py FOLDER BATCH_SIZE``; for ``accelerate launch``."""

from __future__ import annotations

import sys
from pathlib import Path

from support.tiny_host import TinyHost

from lora_trainer.config import RunConfig
from lora_trainer.training.request import RunRequest
from lora_trainer.training.run import train


def main(folder: Path, batch_size: int) -> None:
    config = RunConfig().replace(
        resolution=64, network_dim=4, max_train_epochs=3, seed=7, train_batch_size=batch_size,
        optimizer_type="SGDNesterov", learning_rate=1.0,  # Adam would blow up rounding where a gradient is nearly 0
        save_precision="float", network_dropout=0.1, shuffle_caption=True, sample_every_n_epochs=1,
    )  # fmt: skip
    for _ in train(TinyHost(folder / "loras"), RunRequest("zork", folder.parent / "data", config, folder / "out")):
        pass


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
