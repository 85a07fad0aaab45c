"""Short runs of the tiny model, which end as a test wants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from lora_trainer.config import RunConfig
from lora_trainer.training.events import CancelToken, Event, StepDone
from lora_trainer.training.request import RunRequest
from lora_trainer.training.run import train
from tests.support.tiny_host import TinyHost, make_dataset

SMALL: dict[str, Any] = {
    "resolution": 64, "network_dim": 4, "network_alpha": 4, "max_train_epochs": 2, "learning_rate": 1e-2, "seed": 7,
    "text_encoder_lr": 0, "save_every_n_epochs": 0, "save_precision": "float",
}  # fmt: skip


class FailingHost(TinyHost):
    """Its model raises ``error`` in the step ``at``."""

    def __init__(self, lora_dir: Path, at: int, error: BaseException) -> None:
        super().__init__(lora_dir)
        predict, calls = self.model.predict, [0]

        def failing(*args: Any) -> torch.Tensor:
            calls[0] += torch.is_grad_enabled()  # otherwise it is the base model that is compared with
            if calls[0] == at:
                raise error
            return predict(*args)

        self.model.predict = failing  # type: ignore[method-assign]


def request(
    root: Path, name: str = "zork", host: TinyHost | None = None, *, resume: bool = False, overwrite: bool = False,
    output: Path | None = None, **options: Any,
) -> tuple[TinyHost, RunRequest, CancelToken]:  # fmt: skip
    """What ``train`` takes."""
    if not (root / "data").exists():
        make_dataset(root / "data")
    config = RunConfig().replace(**{**SMALL, **options})
    run = RunRequest(name, root / "data", config, output or root / "out", resume=resume, overwrite=overwrite)
    return host or TinyHost(root / "loras"), run, CancelToken()


def run(
    root: Path, name: str = "zork", host: TinyHost | None = None, *, stop_at: int = 0, fails_at: int = 0,
    error: BaseException | None = None, events: list[Event] | None = None, **options: Any,
) -> tuple[TinyHost, list[Event]]:  # fmt: skip
    """Train to the end, to a stop, or to the step that fails; ``events`` is filled also if it raises."""
    events = [] if events is None else events
    if error is not None:
        host = FailingHost(root / "loras", fails_at, error)
    host, asked, token = request(root, name, host, **options)
    for event in train(host, asked, token):
        events.append(event)
        if isinstance(event, StepDone) and event.step == stop_at:
            token.cancel()
    return host, events


def of(events: list[Event], kind: type) -> list[Any]:
    """Those of one kind."""
    return [event for event in events if isinstance(event, kind)]


def snapshot(root: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def tensors(path: Path) -> dict[str, torch.Tensor]:
    """What a LoRA file holds."""
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
