"""One process or several: the few things that a run must agree on under ``accelerate launch``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from lora_trainer.errors import LoraTrainerError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


class Processes:
    """This process among its peers; alone it does nothing and imports nothing.

    Gradients are summed, not averaged: every process divides by the size of the whole batch, so that two processes
    with one image each compute what one process with two images does, also when a bucket's last batch is uneven.
    """

    def __init__(self) -> None:
        self.world, self.rank = int(os.environ.get("WORLD_SIZE", "1")), 0
        self.device: torch.device | None = None
        if self.world > 1:
            import torch
            from accelerate import PartialState

            state = PartialState(cpu=not torch.cuda.is_available())  # it takes CPUs for one process unless told so
            self.world, self.rank, self.device = state.num_processes, state.process_index, state.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and tells the events."""
        return self.rank == 0

    def sum_gradients(self, parameters: Sequence[torch.Tensor]) -> None:
        """Add up every parameter's gradient over all processes; a missing gradient counts as zero."""
        if self.world == 1:
            return
        import torch
        import torch.distributed as dist

        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([g.reshape(-1) for g in gradients])  # one message instead of hundreds
        dist.all_reduce(flat)
        for parameter, part in zip(parameters, flat.split([g.numel() for g in gradients]), strict=True):
            parameter.grad = part.view_as(parameter)

    def sum(self, *values: float) -> tuple[float, ...]:
        """Each value added up over all processes."""
        if self.world == 1:
            return values
        import torch
        import torch.distributed as dist

        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return tuple(total.tolist())

    def from_main(self, value: T) -> T:
        """The main process's value, in all processes."""
        if self.world == 1:
            return value
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value])[0]

    def main_first(self, work: Callable[[], object]) -> None:
        """The main process does this while the others wait; what keeps it from doing so ends them, too."""
        if self.world == 1:
            work()
            return
        problem: LoraTrainerError | None = None
        if self.is_main:
            try:
                work()
            except LoraTrainerError as error:
                problem = error
        problem = self.from_main(problem)
        if problem is not None:
            raise problem

    def gather(self, values: list[T]) -> list[T]:
        """The concatenation of all processes' lists, in all processes."""
        if self.world == 1:
            return values
        import torch.distributed as dist

        lists: list[Any] = [None] * self.world
        dist.all_gather_object(lists, values)
        return [value for part in lists for value in part]

    def wait(self) -> None:
        """Until every process is here."""
        if self.world > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()
