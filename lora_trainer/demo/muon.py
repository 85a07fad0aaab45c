"""Muon for matrices and convolutions, Adam for the rest: fewer steps than Adam alone, which is what a CPU needs.

Momentum orthogonalised by Newton-Schulz iterations (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Nearest semi-orthogonal matrices, roughly, of a batch (n, rows, columns) with rows <= columns."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    gram = x @ x.mT  # the iteration x <- (a + b g + c g g) x, kept in the small space of g = x x'
    one = torch.eye(gram.shape[-1]).expand_as(gram)
    product = one
    for _ in range(steps):
        factor = torch.baddbmm(a * one + b * gram, gram, gram, alpha=c)
        product = factor @ product
        gram = factor @ gram @ factor
    return product @ x


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum; the step's root mean square is ``lr * 0.2`` for every matrix, like Adam's."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, decay: float = 0.01):
        super().__init__(list(parameters), {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            shapes: dict[tuple[int, int], list[nn.Parameter]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    rows, columns = p.shape[0], p[0].numel()
                    shapes[min(rows, columns), max(rows, columns)].append(p)
            for (rows, columns), parameters in shapes.items():
                updates = []
                for p in parameters:
                    assert p.grad is not None
                    buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    buffer.lerp_(p.grad, 1 - group["momentum"])
                    update = p.grad.lerp(buffer, group["momentum"]).flatten(1)
                    updates.append(update if update.shape[0] == rows else update.T)
                stack = orthogonalise(torch.stack(updates))
                scale = 0.2 * columns**0.5  # an orthogonal (rows, columns) has rms columns ** -0.5
                for p, update in zip(parameters, stack, strict=True):
                    update = update if p.shape[0] == rows else update.T
                    p.mul_(1 - group["lr"] * group["decay"]).add_(update.reshape(p.shape), alpha=-group["lr"] * scale)


def optimizers(
    model: nn.Module, muon_lr: float, adam_lr: float, ends: tuple[str, ...]
) -> list[tuple[torch.optim.Optimizer, float]]:
    """Muon for hidden weights, AdamW for biases, norms, embeddings and layers whose name has one of ``ends``; each with
    its peak rate."""
    hidden: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, p in model.named_parameters():
        (rest if p.ndim < 2 or any(e in name for e in ends) else hidden).append(p)
    return [
        (Muon(hidden, muon_lr), muon_lr),
        (torch.optim.AdamW(rest, lr=adam_lr, betas=(0.9, 0.98), weight_decay=0.0), adam_lr),
    ]
