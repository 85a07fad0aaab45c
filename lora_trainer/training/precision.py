"""Number formats in the training step: autocast, gradient scaling, clipping.

LoRA weights, their gradients and the optimiser are always float32 (see :mod:`lora_trainer.training.rounding` for the
numbers that weights may have); ``mixed_precision`` is the format of the model's arithmetic. fp16 needs gradient scaling
and is therefore offered on CUDA (and ROCm) devices only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lora_trainer.dtypes import DTYPES, MIXED_PRECISIONS
from lora_trainer.errors import ConfigError, quoted

if TYPE_CHECKING:
    from torch.amp import GradScaler


def check_precision(device: torch.device, mixed_precision: str) -> None:
    """Refuse a precision that the device can't train in; call it before the first step.

    Raises:
        ConfigError: names the device and what to choose instead.
    """
    if mixed_precision == "no":
        return
    if mixed_precision not in MIXED_PRECISIONS:
        raise ConfigError(
            f"mixed_precision can't be {quoted(mixed_precision)}; choose one of {', '.join(MIXED_PRECISIONS)}."
        )
    if mixed_precision == "fp16" and device.type != "cuda":
        raise ConfigError(
            f"mixed_precision fp16 can't be trained on {device.type} (no gradient scaling there); choose bf16 or no."
        )
    if mixed_precision == "bf16" and not _computes_bf16(device):
        raise ConfigError(
            f"mixed_precision bf16 isn't supported by this {device.type} device; "
            f"choose {'fp16 or no' if device.type == 'cuda' else 'no'}."
        )


def autocast(device: torch.device, mixed_precision: str) -> AbstractContextManager[Any]:
    """The context of forward pass and loss; nothing for "no", so that a host's own autocast isn't touched."""
    if mixed_precision == "no":
        return nullcontext()
    return torch.autocast(device.type, dtype=DTYPES[mixed_precision])


def arithmetic(mixed_precision: str) -> torch.dtype | None:
    """What autocast computes in; None for "no"."""
    return None if mixed_precision == "no" else DTYPES[mixed_precision]


def make_grad_scaler(device: torch.device, mixed_precision: str) -> GradScaler:
    """A gradient scaler; switched off, and then without any effect, except for fp16 on CUDA.

    Use it unconditionally: ``scaler.scale(loss).backward()``, :func:`clip_gradients`, ``scaler.step(optimizer)``,
    ``scaler.update()``. Its ``state_dict()`` (empty when off) goes into the run's state.
    """
    enabled = mixed_precision == "fp16" and device.type == "cuda"
    if hasattr(torch.amp, "GradScaler"):  # torch >= 2.3
        return torch.amp.GradScaler("cuda", enabled=enabled)
    return torch.cuda.amp.GradScaler(enabled=enabled)


def clip_gradients(
    params: Iterable[Tensor],
    max_norm: float,
    scaler: GradScaler | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> float:
    """Unscale the gradients, clip them to ``max_norm`` (0: never) and return their global 2-norm before clipping.

    The norm is NaN or infinite exactly when a gradient is: test it with ``math.isfinite``. With a scaler that is on,
    an infinite norm is normal now and then: ``scaler.step`` skips that step and ``scaler.update`` lowers the scale.

    Args:
        params: all trained parameters; those without gradient are left out.
        scaler: from :func:`make_grad_scaler`; unscaling needs ``optimizer`` when it is on.
        optimizer: the optimiser that holds ``params``.
    """
    if scaler is not None and scaler.is_enabled():
        if optimizer is None:
            raise ValueError("An enabled GradScaler unscales an optimizer's gradients: pass the optimizer.")
        scaler.unscale_(optimizer)
    return float(torch.nn.utils.clip_grad_norm_(params, max_norm if max_norm else float("inf")))


def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """The 2-norm of all tensors together, a scalar on their device; not finite exactly when one of them isn't."""
    with torch.no_grad():
        return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(tensors))))


def _computes_bf16(device: torch.device) -> bool:
    """Whether a product under bf16 autocast comes out in bf16, without emulation on CUDA."""
    if device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) < (8, 0):
        return False
    try:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            product = torch.ones(2, 2, device=device) @ torch.ones(2, 2, device=device)
    except RuntimeError:
        return False
    return product.dtype == torch.bfloat16
