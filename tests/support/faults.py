"""A run with everything in it that can fail, and how it is continued after a fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.runs import run
from tests.support.tiny_host import TinyHost

OPTIONS: dict[str, Any] = {
    "save_every_n_steps": 7, "sample_every_n_steps": 8, "text_encoder_lr": 1e-3, "gradient_checkpointing": True,
    "on_divergence": "stop", "save_state_every_n_minutes": 1e-9, "max_train_epochs": 3,
    "measure_at_saves": False,  # has tests of its own, and would double the time of these
}  # fmt: skip


def undisturbed(place: Path, **options: Any) -> bytes:
    """The file of a run that nothing disturbed."""
    run(place, **options)
    return (place / "loras/zork.safetensors").read_bytes()


def fingerprint(host: TinyHost) -> tuple[Any, ...]:
    """The model bit by bit, and what hangs on its modules."""
    modules = [module for part in (host.model.unet, host.model.text) for module in part.modules()]
    weights = [part.state_dict() for part in (host.model.unet, host.model.text)]
    return (
        [[(name, tensor.numpy().tobytes()) for name, tensor in one.items()] for one in weights],
        [(len(module._forward_hooks), len(module._forward_pre_hooks), sorted(vars(module))) for module in modules],
        [parameter.requires_grad for module in modules for parameter in module.parameters(recurse=False)],
        host.taken,
    )


def continued(root: Path, whole: bytes) -> None:
    """The run goes on, from a state if there is one, and its file is the same as without the fault."""
    has_state = any((root / "out/zork/state").glob("*.pt"))
    run(root, resume=has_state, overwrite=not has_state, **OPTIONS)
    assert (root / "loras/zork.safetensors").read_bytes() == whole
    assert not list(root.rglob("*.tmp")) and not list(root.rglob("*.lock"))
