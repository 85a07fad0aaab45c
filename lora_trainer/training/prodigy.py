"""The Prodigy optimiser: Adam that finds its own learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Prodigy(Optimizer):
    """Adam with an estimate ``d`` of the distance to the solution as rate (Mishchenko & Defazio 2023, algorithm 4).

    The rate of a step is ``lr·d``; leave ``lr`` at 1 and use schedules to lower it. ``d`` is found from all parameters
    together, so all groups have the same ``lr`` (or 0). Arguments and defaults are those of the package ``prodigyopt``,
    except for its switch for FSDP, and for β1 > 0 the numbers are the same to rounding.

    Args:
        betas, beta3: decay of the averages; ``beta3`` of those behind ``d``, by default √β2.
        decouple: weight decay as in AdamW instead of as a penalty.
        use_bias_correction: Adam's correction of the first steps.
        safeguard_warmup: leave a warm-up's small rates out of the estimate's denominator.
        d0: first estimate. d_coef: factor on the estimate. growth_rate: largest factor by which d grows in a step.
        slice_p: estimate from every p-th element only, which saves memory.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        betas: tuple[float, float] = (0.9, 0.999),
        beta3: float | None = None,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decouple: bool = True,
        use_bias_correction: bool = False,
        safeguard_warmup: bool = False,
        d0: float = 1e-6,
        d_coef: float = 1.0,
        growth_rate: float = math.inf,
        slice_p: int = 1,
    ) -> None:
        if min(d0, eps, d_coef) <= 0 or min(lr, weight_decay) < 0 or growth_rate < 1 or slice_p < 1:
            raise ValueError("d0, eps and d_coef must be > 0, lr and weight_decay >= 0, growth_rate and slice_p >= 1")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas {betas} must be in 0…1")
        defaults = {
            "lr": lr, "betas": tuple(betas), "beta3": math.sqrt(betas[1]) if beta3 is None else beta3, "eps": eps,
            "weight_decay": weight_decay, "decouple": decouple, "use_bias_correction": use_bias_correction,
            "safeguard_warmup": safeguard_warmup, "d0": d0, "d_coef": d_coef, "growth_rate": growth_rate,
            "slice_p": slice_p, "d": d0, "d_max": d0, "d_numerator": 0.0, "k": 0,
        }  # fmt: skip
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Make one step: update the averages, then ``d``, then the weights.

        Raises:
            ValueError: if groups have different rates other than 0.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        shared = self.param_groups[0]
        lr = max(group["lr"] for group in self.param_groups)
        if any(group["lr"] not in (lr, 0) for group in self.param_groups):
            raise ValueError("Prodigy needs the same lr in all parameter groups, or 0")
        beta1, beta2 = shared["betas"]
        d, k = shared["d"], shared["k"]
        rate = d * lr
        if shared["use_bias_correction"]:
            rate *= math.sqrt(1 - beta2 ** (k + 1)) / (1 - beta1 ** (k + 1))
        numerator, denominator = self._update_averages(d, rate)
        if denominator == 0:
            return loss  # no gradient, or a rate of 0 at the start of a warm-up
        numerator += shared["beta3"] * shared["d_numerator"]
        d = self._update_d(numerator, shared["d_coef"] * numerator / denominator)
        self._update_weights(d, rate)
        return loss

    def _update_averages(self, d: float, rate: float) -> tuple[float, float]:
        """Decay and add to m, v and s of every parameter; the step's share of d's numerator, and its denominator."""
        numerators: list[Tensor] = []
        denominators: list[Tensor] = []
        for group, p, full_grad in self._trained():
            (beta1, beta2), decay, every = group["betas"], group["weight_decay"], group["slice_p"]
            if decay and not group["decouple"]:
                full_grad.add_(p, alpha=decay)
            state = self._state(p, every)
            if group["lr"] == 0:
                continue
            scale = d / group["d0"]  # keeps the sums from becoming tiny; it cancels out in the quotient
            grad = full_grad.flatten()[::every]
            moved = state["p0"] - p.flatten()[::every]
            numerators.append(scale * rate * torch.dot(grad, moved))
            state["exp_avg"].mul_(beta1).add_(full_grad, alpha=d * (1 - beta1))
            state["exp_avg_sq"].mul_(beta2).addcmul_(full_grad, full_grad, value=d * d * (1 - beta2))
            weight = scale * (d if group["safeguard_warmup"] else rate)
            state["s"].mul_(group["beta3"]).add_(grad, alpha=weight)
            denominators.append(state["s"].abs().sum())
        if not denominators:
            return 0.0, 0.0
        sums = torch.stack((torch.stack(numerators), torch.stack(denominators))).cpu().double().sum(1)
        return float(sums[0]), float(sums[1])

    def _update_d(self, numerator: float, d_hat: float) -> float:
        """Raise d to the new estimate, at most by the growth rate, and note it in every group."""
        shared = self.param_groups[0]
        d = max(shared["d"], d_hat) if shared["d"] == shared["d0"] else shared["d"]
        d_max = max(shared["d_max"], d_hat)
        d = min(d_max, d * shared["growth_rate"])
        for group in self.param_groups:
            group.update(d=d, d_max=d_max, d_numerator=numerator, k=group["k"] + 1)
        return d

    def _update_weights(self, d: float, rate: float) -> None:
        for group, p, _ in self._trained():
            if group["lr"] == 0:
                continue
            state = self.state[p]
            if group["weight_decay"] and group["decouple"]:
                p.add_(p, alpha=-group["weight_decay"] * rate)
            p.addcdiv_(state["exp_avg"], state["exp_avg_sq"].sqrt().add_(d * group["eps"]), value=-rate)

    def _trained(self) -> list[tuple[dict[str, Any], Tensor, Tensor]]:
        return [(group, p, p.grad) for group in self.param_groups for p in group["params"] if p.grad is not None]

    def _state(self, p: Tensor, every: int) -> dict[str, Any]:
        state = self.state[p]
        if not state:
            start = p.flatten()[::every].clone()
            state["p0"] = start if bool(start.any()) else torch.zeros((), device=p.device)  # LoRA's up starts at zero
            state["s"] = torch.zeros_like(p.flatten()[::every])
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
        return state
