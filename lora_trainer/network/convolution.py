"""A convolution beside a frozen one: the same stride, padding and dilation, circular where a host made that so."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor


def convolve(x: Tensor, weight: Tensor, module: Any) -> Tensor:
    """``weight`` with the stride and padding of the convolution ``module`` that it goes beside."""
    stride, padding, dilation = (getattr(module, name) for name in ("stride", "padding", "dilation"))
    mode = getattr(module, "padding_mode", "zeros")
    if mode != "zeros" and not isinstance(padding, str):  # a host's "tiling" makes convolutions circular
        around = [side for size in reversed(tuple(padding)) for side in (size, size)]
        x, padding = F.pad(x, around, mode=mode), 0
    return F.conv2d(x, weight, None, stride, padding, dilation)
