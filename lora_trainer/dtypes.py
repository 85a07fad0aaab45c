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
