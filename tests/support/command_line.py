"""The command line on a tiny model."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.cli import main
from lora_trainer.cli.train import Reader
from lora_trainer.training.events import Event, StepDone

ROOT = Path(__file__).resolve().parents[2]


SMALL = ["resolution=64", "network_dim=4", "max_train_epochs=2", "text_encoder_lr=0", "seed=7", "learning_rate=1e-2"]


TRAIN = ["train", "--checkpoint", "base.safetensors", "--dataset", "data"]


KOHYA = {
    "LoRA_type": "Standard", "epoch": 1, "learning_rate": "1e-3", "max_resolution": "64,64", "network_dim": 4,
    "network_alpha": 4, "mixed_precision": "no", "optimizer": "AdamW", "text_encoder_lr": "0", "unet_lr": "1e-3",
    "cache_latents": True, "train_batch_size": 1, "seed": "7", "lr_warmup": "0", "save_every_n_epochs": 0,
}  # fmt: skip


def train(*more: str, name: str = "zork") -> int:
    return main(
        ["train", "--checkpoint", "base.safetensors", "--dataset", "data", "--name", name, *more, "--set", *SMALL]
    )


def one_line(text: str) -> str:
    assert text.endswith("\n") and text.count("\n") == 1 and "Traceback" not in text, text
    return text


def on_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], Any]) -> None:
    """Call ``act`` when the terminal is told of this step."""
    show = Reader.show

    def acting(self: Reader, event: Event) -> None:
        show(self, event)
        if isinstance(event, StepDone) and event.step == step:
            act()

    monkeypatch.setattr(Reader, "show", acting)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)
