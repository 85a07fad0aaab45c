"""Number formats by the names that options give them."""

from __future__ import annotations

import torch

DTYPES: dict[str, torch.dtype] = {
    "no": torch.float32, "float": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16,
}  # fmt: skip
MIXED_PRECISIONS = ("no", "fp16", "bf16")  # what mixed_precision can be


def precision_of(dtype: torch.dtype) -> str:
    """The mixed_precision that computes in the weights' own format; "no" for any other than the half ones."""
    return next((name for name in MIXED_PRECISIONS if DTYPES[name] == dtype), "no")


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """What autocast computes products in on this kind of device at the moment; None where it is off."""
    if hasattr(torch, "get_autocast_dtype"):  # torch >= 2.4
        return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
    if device.type == "cpu":
        return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None
    return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else None
