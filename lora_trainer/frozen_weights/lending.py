"""Another tensor in the place of a module's weight, for the length of the module's forward pass.

Autograd saves the weight of a frozen layer for the gradient of its input. Where that weight was made for the moment
(cast to the arithmetic's number format, made of 8 bits, brought from CPU memory), saving it would keep a copy of the
whole model until the backward pass. So what is saved of a lent weight is how it is made; the backward pass makes it
again. Blocks that are recomputed make theirs again anyhow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lora_trainer.dtypes import autocast_dtype


class Source(Protocol):
    """Where a weight comes from when it is needed."""

    device: torch.device
    dtype: torch.dtype  # in which it is computed with, unless autocast has another one

    def get(self, dtype: torch.dtype) -> Tensor:
        """The weight, on :attr:`device`; the very same numbers in the same layout at every call."""


class Recast:
    """A module's own weight in another number format."""

    def __init__(self, module: nn.Module) -> None:
        self._weight: Tensor = module.weight.detach()  # type: ignore[operator, union-attr]
        self.device, self.dtype = self._weight.device, self._weight.dtype

    def get(self, dtype: torch.dtype) -> Tensor:
        """See :class:`Source`."""
        return self._weight.to(dtype)


@dataclass(frozen=True)
class _Again:
    """What is saved in the place of a lent weight, or of a view of it."""

    source: Source
    dtype: torch.dtype
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


class Lender:
    """Lends weights to modules."""

    def __init__(self) -> None:
        self._lent: dict[int, Source] = {}  # by storage

    @contextmanager
    def lending(self, sources: Mapping[nn.Module, Source]) -> Iterator[None]:
        """While it lasts, each of these modules has its source's weight whenever its forward pass runs.

        ``module.weight`` is the module's own one at any other time, and for whoever asks for its parameters.
        """
        with ExitStack() as stack:
            for module, source in sources.items():
                stack.callback(self._lend(module, source))
            yield

    def _lend(self, module: nn.Module, source: Source) -> Callable[[], None]:
        def before(module: nn.Module, args: object) -> None:
            weight = source.get(autocast_dtype(source.device) or source.dtype)
            self._lent[_storage(weight)] = source
            module.__dict__["weight"] = weight  # is found before the parameter of that name

        def after(module: nn.Module, args: object, output: object) -> None:
            weight = module.__dict__.pop("weight", None)
            if weight is not None:
                self._lent.pop(_storage(weight), None)

        handles = (
            module.register_forward_pre_hook(before),
            module.register_forward_hook(after, always_call=True),  # after an error, too
        )

        def stop() -> None:
            for handle in handles:
                handle.remove()

        return stop

    @contextmanager
    def made_again(self) -> Iterator[None]:
        """Lent weights that a forward pass saves while it lasts are made again for its backward pass."""
        with torch.autograd.graph.saved_tensors_hooks(self._save, _restore):
            yield

    def lends(self, tensor: Tensor) -> bool:
        """Whether ``tensor`` is lent at this moment, or a view of what is."""
        return _storage(tensor) in self._lent

    def _save(self, tensor: Tensor) -> Tensor | _Again:
        source = self._lent.get(_storage(tensor)) if self._lent else None
        if source is None:
            return tensor
        return _Again(source, tensor.dtype, tensor.shape, tensor.stride(), int(tensor.storage_offset()))


def layers(roots: Iterable[nn.Module]) -> list[nn.Module]:
    """Linear and convolutional layers, of whatever class: what has a weight of 2 or 4 dimensions of its own."""
    return [module for root in roots for module in root.modules() if _is_layer(module)]


def recast(roots: Iterable[nn.Module], dtype: torch.dtype, but: Iterable[nn.Module] = ()) -> dict[nn.Module, Source]:
    """Sources for the layers whose weights have another format than autocast computes in."""
    left = {id(module) for module in but}
    found: list[Any] = [module for module in layers(roots) if id(module) not in left]
    return {module: Recast(module) for module in found if module.weight.dtype != dtype}


def _is_layer(module: nn.Module) -> bool:
    weight = module._parameters.get("weight")
    if weight is None or isinstance(module, nn.Embedding):
        return False
    return weight.dim() in (2, 4) and weight.is_floating_point()


def _restore(saved: Tensor | _Again) -> Tensor:
    if isinstance(saved, Tensor):
        return saved
    return saved.source.get(saved.dtype).as_strided(saved.size, saved.stride, saved.offset)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
