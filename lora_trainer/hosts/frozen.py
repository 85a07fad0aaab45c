"""Base weights are never trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def frozen(modules: Iterable[nn.Module]) -> Iterator[None]:
    """No gradients and eval mode for ``modules`` while the context lasts; afterwards as it was, weight by weight.

    WebUIs leave ``requires_grad`` on in the UNet. What is as it should be already isn't touched.
    """
    modules = list(modules)
    gradients = [(weight, weight.requires_grad) for module in modules for weight in module.parameters()]
    modes = [(part, part.training) for module in modules for part in module.modules()]
    try:
        _set(gradients, modes, on=False)
        yield
    finally:
        _set(gradients, modes, on=True)
        for weight, wanted in gradients:
            if wanted:
                weight.grad = None


def _set(gradients: list[tuple[nn.Parameter, bool]], modes: list[tuple[nn.Module, bool]], on: bool) -> None:
    """Everything to what it was (``on``), or to off."""
    for weight, wanted in gradients:
        if weight.requires_grad != (on and wanted):
            weight.requires_grad_(on and wanted)
    for part, training in modes:
        if part.training != (on and training):
            part.training = on and training
