"""How the UNet's blocks hold their weights while a run has the model; afterwards they are as they were, bit by bit.

The original of a weight that is held in 8 bits, or in CPU memory, is kept in CPU memory as long as that lasts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lora_trainer.frozen_weights.bringing import Bringer, pinned
from lora_trainer.frozen_weights.eight_bit import from_8_bits, to_8_bits
from lora_trainer.frozen_weights.lending import Lender, layers, recast


class HeldWeight:
    """A :class:`lora_trainer.frozen_weights.lending.Source`: one weight, held in another way than the model does.

    Args:
        parameter: has its original in CPU memory from now on.
        dtype: in which it is computed with where nothing else is said.
        bringer: brings it whenever it is needed; None to have it on the device.
    """

    def __init__(
        self, parameter: Tensor, device: torch.device, dtype: torch.dtype, in_8_bits: bool, bringer: Bringer | None
    ) -> None:
        self.device, self.dtype, self._bringer, self._parameter = device, dtype, bringer, parameter
        original = parameter.data
        self._moved = original.device.type != "cpu"
        self._factor: Tensor | None = None
        if in_8_bits:
            numbers, self._factor = to_8_bits(original.to(device))
            self._original = original.to("cpu")
        else:
            self._original = pinned(original, device) if self._moved else original
            numbers = self._original.to(dtype)
        self._numbers = numbers if bringer is None else pinned(numbers, device)
        parameter.data = self._original

    def get(self, dtype: torch.dtype) -> Tensor:
        """See :class:`lora_trainer.frozen_weights.lending.Source`."""
        here = self._numbers if self._bringer is None else self._bringer.bring(self._numbers)
        return here.to(dtype) if self._factor is None else from_8_bits(here, self._factor, dtype)

    def put_back(self, device: torch.device) -> None:
        """Give the module its original, on ``device`` if it was on one; not if somebody else gave it another tensor."""
        if self._moved and device.type != "meta" and self._parameter.data_ptr() == self._original.data_ptr():
            self._parameter.data = self._original.to(device)


class FrozenWeights:
    """The weights of a UNet's blocks. At first, and after :meth:`put_back`, they are the model's own.

    Args:
        device: where the UNet computes.

    Attributes:
        in_8_bits: blocks whose weights are held so by :meth:`take`.
        in_cpu: blocks whose weights stay in CPU memory then.
    """

    def __init__(self, unet: nn.Module, device: torch.device) -> None:
        self._unet, self._device = unet, device
        self._lender, self._stack = Lender(), ExitStack()
        self.in_8_bits: list[nn.Module] = []  # blocks
        self.in_cpu: list[nn.Module] = []
        self._eight, self._away = list[nn.Module](), list[nn.Module]()  # their layers
        self._held: dict[nn.Module, HeldWeight] = {}
        self._lent = False

    def choose(self, in_8_bits: Collection[nn.Module], in_cpu: Collection[nn.Module]) -> None:
        """Which blocks :meth:`take` holds in 8 bits, and which in CPU memory; a block may be in both."""
        self.in_8_bits, self.in_cpu = list(in_8_bits), list(in_cpu)
        self._eight, self._away = layers(in_8_bits), layers(in_cpu)

    def chosen(self) -> list[Tensor]:
        """The parameters that :meth:`take` holds in another way."""
        return [module.weight for module in self._layers()]

    def take(self, dtype: torch.dtype | None = None) -> None:
        """Hold the chosen blocks' weights as was chosen; nothing happens if they are held already.

        After a :meth:`put_back` that failed, those that it left are held on.

        Args:
            dtype: in which they are computed with; None for each one's own.
        """
        if self._lent or not (chosen := self._layers()):
            return
        eight, away, bringer = set(self._eight), set(self._away), Bringer(self._device)
        try:
            for module in chosen:
                if module in self._held:
                    continue
                brought = bringer if module in away else None
                own = module.weight.dtype
                self._held[module] = HeldWeight(module.weight, self._device, dtype or own, module in eight, brought)
            self._stack.enter_context(self._lender.lending(self._held))
            self._lent = True
        except BaseException:
            self.put_back()
            raise

    def put_back(self) -> None:
        """Give the modules their own weights back, where the rest of the UNet is now.

        What finds no memory there is still held afterwards, and knows that it was there.
        """
        self._stack.close()
        self._lent = False
        if self._held:
            kept = {id(module.weight) for module in self._held}
            rest = next((one for one in self._unet.parameters() if id(one) not in kept), None)
            device = self._device if rest is None else rest.device
            for module, weight in list(self._held.items()):
                weight.put_back(device)
                del self._held[module]

    @contextmanager
    def in_step(self, others: Collection[nn.Module], dtype: torch.dtype | None) -> Iterator[None]:
        """While it lasts, no copy of a weight is kept for the backward pass.

        Args:
            others: parts of the model beside the UNet that gradients go through.
            dtype: in which autocast computes; None without autocast.
        """
        cast = {} if dtype is None else recast([self._unet, *others], dtype, but=self._held)
        if not cast and not self._held:
            yield
            return
        with self._lender.lending(cast), self._lender.made_again():
            yield

    def lends(self, tensor: Tensor) -> bool:
        """Whether ``tensor`` is a weight that was made for the moment."""
        return self._lender.lends(tensor)

    def _layers(self) -> list[Any]:
        return list(dict.fromkeys([*self._eight, *self._away]))
