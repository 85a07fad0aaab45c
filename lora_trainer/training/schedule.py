"""Learning-rate schedules: sd-scripts' list in closed form, and scheduler classes."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Collection
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from lora_trainer.config import ScheduleConfig
from lora_trainer.errors import ConfigError, quoted, shortened
from lora_trainer.training.classes import load_class
from lora_trainer.training.optimizers import is_schedule_free, rate_of

logger = logging.getLogger(__name__)

Factor = Callable[[int], float]  # from steps done to the share of the full rate
POLYNOMIAL_END = 1e-7  # the rate at which the polynomial schedule ends, as in transformers
INVERSE_SQRT_TIMESCALE = 10_000  # where neither a time scale nor a warm-up is given, as in transformers


def create_scheduler(
    optimizer: Optimizer, config: ScheduleConfig, total_steps: int, typed: Collection[str] = ()
) -> LRScheduler:
    """Make the schedule; step it once after every optimiser step.

    ``lr_scheduler_type`` wins over ``lr_scheduler``. Adafactor with its own rates gets a schedule that only reports
    them, Schedule-Free optimisers a constant one, whatever ``lr_scheduler`` says (sd-scripts' rule).

    Args:
        total_steps: optimiser steps of the whole run; warm-up and decay below 1 are shares of it.
        typed: class paths that were typed on the command line; see :mod:`lora_trainer.training.classes`.

    Raises:
        ConfigError: names the option, e.g. a warm-up where the schedule has none.
    """
    if any(group.get("relative_step") for group in optimizer.param_groups):
        _refuse_warmup(config, "Adafactor with relative_step", "or add relative_step=False to optimizer_args")
        return OwnRates(optimizer)
    if is_schedule_free(optimizer):
        _refuse_warmup(config, type(optimizer).__name__, "or add warmup_steps to optimizer_args")
        return LambdaLR(optimizer, lambda step: 1.0)
    if config.lr_scheduler_type:
        _refuse_warmup(config, config.lr_scheduler_type, "or give it in lr_scheduler_args")
        return _custom(optimizer, config, typed)
    if config.lr_scheduler == "adafactor":
        raise ConfigError(
            "lr_scheduler adafactor needs optimizer_type Adafactor with relative_step=True; choose another one."
        )
    warmup, decay = steps_of(config.lr_warmup_steps, total_steps), steps_of(config.lr_decay_steps, total_steps)
    if warmup >= total_steps and warmup > 0:
        logger.warning("The warm-up takes all of the run: %d of %d steps.", warmup, total_steps)
    full = float(optimizer.defaults.get("lr") or 0)
    factors = [
        _factor(config, warmup, decay, total_steps, float(group["lr"]), full) for group in optimizer.param_groups
    ]
    return LambdaLR(optimizer, factors)


def steps_of(value: float, total_steps: int) -> int:
    """Steps meant by an option: a share of ``total_steps`` below 1, else a number of steps; both rounded down."""
    return int(value * total_steps) if value < 1 else int(value)


class OwnRates(LambdaLR):
    """Reports the rates of an optimiser that finds them itself, and sets none."""

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__(optimizer, lambda step: 1.0)

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """The groups' rates as they are."""
        return [rate_of(self.optimizer, group) for group in self.optimizer.param_groups]


def _factor(config: ScheduleConfig, warmup: int, decay: int, total: int, lr: float, full: float) -> Factor:
    """The closed form of ``lr_scheduler`` for one group of full rate ``lr``; ``full``: that of the optimiser."""
    name, floor = config.lr_scheduler, config.lr_scheduler_min_lr_ratio
    if name == "constant":
        _refuse_warmup(config, "lr_scheduler constant", "or choose constant_with_warmup")
        _arguments(config)  # it takes none
        return lambda step: 1.0
    if name == "piecewise_constant":
        _refuse_warmup(config, "lr_scheduler piecewise_constant", "and write the warm-up into step_rules")
        return _piecewise(config.lr_scheduler_args)
    own = _arguments(config)
    if own.get("min_lr") and full:  # as transformers has it: of every group the same share
        floor = own["min_lr"] / full
    if name == "warmup_stable_decay":
        return _with_warmup(_stable_decay(warmup, decay, total, config.lr_scheduler_num_cycles, floor), warmup, floor)
    shapes: dict[str, Callable[[float], float]] = {
        "constant_with_warmup": lambda x: 1.0,
        "linear": lambda x: 1 - x,
        "cosine": lambda x: _cosine(x, 2 * own["num_cycles"]),
        "cosine_with_restarts": lambda x: 0.0 if x >= 1 else _cosine((config.lr_scheduler_num_cycles * x) % 1, 1.0),
        "cosine_with_min_lr": lambda x: floor + (1 - floor) * _cosine(x, config.lr_scheduler_num_cycles),
        "polynomial": lambda x: _polynomial(x, lr, config.lr_scheduler_power, own["lr_end"]),
    }
    if name == "inverse_sqrt":
        scale = config.lr_scheduler_timescale or warmup or INVERSE_SQRT_TIMESCALE
        return _with_warmup(lambda step: 1 / math.sqrt((step - warmup + scale) / scale), warmup)
    shape = shapes[name]
    return _with_warmup(lambda step: max(0.0, shape((step - warmup) / max(1, total - warmup))), warmup)


def _arguments(config: ScheduleConfig) -> dict[str, float]:
    """What a named schedule is given beyond the options, by transformers' names as sd-scripts passes them on.

    Raises:
        ConfigError: for an argument that it doesn't have, or that is no number.
    """
    known = {
        "cosine": {"num_cycles": 0.5}, "polynomial": {"lr_end": POLYNOMIAL_END}, "cosine_with_min_lr": {"min_lr": 0.0},
    }.get(config.lr_scheduler, {})  # fmt: skip
    for name, value in config.lr_scheduler_args.items():
        if name not in known:
            takes = f"it takes only {', '.join(known)}" if known else "it takes none"
            raise ConfigError(f"lr_scheduler_args: {config.lr_scheduler} has no {shortened(name)}; {takes}.")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise ConfigError(f"lr_scheduler_args: {name} can't be {quoted(value)}; give a number of at least 0.")
    if config.lr_scheduler_args.get("min_lr") and config.lr_scheduler_min_lr_ratio:
        raise ConfigError("lr_scheduler_args has min_lr, and lr_scheduler_min_lr_ratio is set; leave one of them out.")
    return {**known, **config.lr_scheduler_args}


def _with_warmup(after: Factor, warmup: int, start: float = 0.0) -> Factor:
    """A straight rise from ``start`` to 1 over ``warmup`` steps, then ``after``."""
    return lambda step: start + (1 - start) * step / warmup if step < warmup else after(step)


def _cosine(x: float, cycles: float) -> float:
    """1 → 0 over one half wave for ``cycles`` = 1; more cycles swing back."""
    return 0.5 * (1 + math.cos(math.pi * cycles * x))


def _polynomial(x: float, lr: float, power: float, lr_end: float) -> float:
    end = lr_end / lr if lr > lr_end else 0.0
    return end if x > 1 else (1 - end) * (1 - x) ** power + end


def _stable_decay(warmup: int, decay: int, total: int, cycles: float, floor: float) -> Factor:
    """Full rate until ``decay`` steps before the end, then a cosine down to ``floor``."""
    if decay == 0:
        raise ConfigError("lr_scheduler warmup_stable_decay needs lr_decay_steps; set it, for instance to 0.2.")
    begin = max(warmup, total - decay)

    def factor(step: int) -> float:
        if step < begin:
            return 1.0
        return floor + (1 - floor) * _cosine((step - begin) / decay, cycles) if step < begin + decay else floor

    return factor


def _piecewise(arguments: dict[str, Any]) -> Factor:
    """``step_rules="1:10,0.1:20,0.01"``: factor 1 before step 10, 0.1 before step 20, 0.01 from there (diffusers)."""
    rules = str(arguments.get("step_rules", ""))
    try:
        *parts, last = rules.split(",")
        pairs = sorted((int(step), float(value)) for value, step in (part.split(":") for part in parts))
        rest = float(last)
    except (ValueError, OverflowError):
        raise ConfigError(
            "lr_scheduler piecewise_constant needs lr_scheduler_args step_rules=factor:step,…,factor, "
            f"such as 1:100,0.1:200,0.01, not {quoted(rules)}."
        ) from None
    if unknown := arguments.keys() - {"step_rules"}:
        names = ", ".join(sorted(unknown))
        raise ConfigError(f"lr_scheduler_args: piecewise_constant takes only step_rules; remove {names}.")
    return lambda step: next((value for end, value in pairs if step < end), rest)


def _custom(optimizer: Optimizer, config: ScheduleConfig, typed: Collection[str]) -> LRScheduler:
    name = config.lr_scheduler_type.strip()
    path = name if "." in name else f"torch.optim.lr_scheduler.{name}"
    cls: Any = load_class("lr_scheduler_type", path, LRScheduler, typed, name)
    needed = [row for row in inspect.signature(cls.step).parameters.values() if row.default is row.empty]
    if len(needed) != 1:  # self only
        raise ConfigError(f"lr_scheduler_type {name} needs more than the step count; choose another schedule.")
    try:
        return cls(optimizer, **config.lr_scheduler_args)
    except Exception as error:  # arguments of every type reach classes that expect numbers
        raise ConfigError(f"lr_scheduler_args don't suit {name} ({shortened(str(error))}); change them.") from error


def _refuse_warmup(config: ScheduleConfig, what: str, remedy: str) -> None:
    if config.lr_warmup_steps:
        raise ConfigError(f"{what} has no warm-up; set lr_warmup_steps to 0, {remedy}.")
