"""Runs on the tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from support.tiny_host import TinyHost, make_dataset

from lora_trainer.config import RunConfig
from lora_trainer.training.events import CancelToken, Event, StepDone
from lora_trainer.training.run import RunRequest, train

SMALL: dict[str, Any] = {
    "resolution": 64, "network_dim": 4, "network_alpha": 4, "max_train_epochs": 2, "learning_rate": 1e-2, "seed": 7,
    "text_encoder_lr": 0, "save_every_n_epochs": 0, "save_precision": "float",
}  # fmt: skip


def run(tmp_path: Path, name: str = "zork", host: TinyHost | None = None, *, resume: bool = False,
        stop_at: int = 0, **options: Any) -> tuple[TinyHost, list[Event]]:  # fmt: skip
    data = tmp_path / "data"
    if not data.exists():
        make_dataset(data)
    host = host or TinyHost(tmp_path / "loras")
    token, events = CancelToken(), []
    request = RunRequest(name, data, RunConfig().replace(**{**SMALL, **options}), tmp_path / "out", resume=resume)
    for event in train(host, request, token):
        events.append(event)
        if isinstance(event, StepDone) and event.step == stop_at:
            token.cancel()
    return host, events


def of(events: list[Event], kind: type) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def tensors(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
