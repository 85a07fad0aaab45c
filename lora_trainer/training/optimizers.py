"""Optimisers by name: torch's, bitsandbytes', Adafactor, Lion, Prodigy, and class paths."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim import Optimizer

from lora_trainer.config import OptimizerConfig
from lora_trainer.config.checks import finds_one_rate
from lora_trainer.errors import ConfigError, first_line, quoted
from lora_trainer.training.classes import INSTEAD, load_class
from lora_trainer.training.lion import Lion
from lora_trainer.training.prodigy import Prodigy

logger = logging.getLogger(__name__)

# sd-scripts' names (read without regard to case) and where their classes live. A class path reaches all others.
BUILT_IN: dict[str, type[Optimizer]] = {"AdamW": torch.optim.AdamW, "Lion": Lion, "Prodigy": Prodigy}
CLASS_PATHS: dict[str, str] = {
    "AdamW8bit": "bitsandbytes.optim.AdamW8bit",
    "PagedAdamW": "bitsandbytes.optim.PagedAdamW",
    "PagedAdamW8bit": "bitsandbytes.optim.PagedAdamW8bit",
    "PagedAdamW32bit": "bitsandbytes.optim.PagedAdamW32bit",
    "Lion8bit": "bitsandbytes.optim.Lion8bit",
    "PagedLion8bit": "bitsandbytes.optim.PagedLion8bit",
    "SGDNesterov": "torch.optim.SGD",
    "SGDNesterov8bit": "bitsandbytes.optim.SGD8bit",
    "Adafactor": "transformers.optimization.Adafactor",
    "DAdaptation": "dadaptation.experimental.DAdaptAdamPreprint",
    "DAdaptAdamPreprint": "dadaptation.experimental.DAdaptAdamPreprint",
    "DAdaptAdaGrad": "dadaptation.DAdaptAdaGrad",
    "DAdaptAdam": "dadaptation.DAdaptAdam",
    "DAdaptAdan": "dadaptation.DAdaptAdan",
    "DAdaptAdanIP": "dadaptation.experimental.DAdaptAdanIP",
    "DAdaptLion": "dadaptation.DAdaptLion",
    "DAdaptSGD": "dadaptation.DAdaptSGD",
    "RAdamScheduleFree": "schedulefree.RAdamScheduleFree",
    "AdamWScheduleFree": "schedulefree.AdamWScheduleFree",
    "SGDScheduleFree": "schedulefree.SGDScheduleFree",
}
NAMES = (*BUILT_IN, *CLASS_PATHS)


def create_optimizer(groups: list[dict[str, Any]], config: OptimizerConfig, typed: Collection[str] = ()) -> Optimizer:
    """Make the optimiser, in training mode.

    Adafactor with ``relative_step`` (its default, as in sd-scripts) finds its own rates: those of the groups are set to
    0 and :func:`lora_trainer.training.schedule.create_scheduler` only reports. Its states and those of all others can
    be saved and loaded by ``state_dict`` and continue bit for bit.

    Args:
        groups: parameter groups with ``params`` and, where it differs from ``learning_rate``, ``lr``; other keys, such
            as ``name``, are kept.
        typed: class paths that were typed on the command line; see :mod:`lora_trainer.training.classes`.

    Raises:
        ConfigError: for an unknown name, arguments that don't suit it, or a package that is missing or doesn't work
            on this device; says what to choose instead.
    """
    cls = _find_class(config.optimizer_type.strip(), typed)
    groups = [{"lr": config.learning_rate, **group} for group in groups]
    arguments = _arguments(cls, config)
    if finds_one_rate(cls.__name__):
        groups = _one_rate(cls.__name__, groups)
    if cls.__name__ == "Adafactor" and cls.__module__.startswith("transformers"):
        if arguments.get("relative_step", True):
            groups = [{**group, "lr": 0.0} for group in groups]
    else:
        arguments["lr"] = config.learning_rate
    if cls.__module__.startswith("bitsandbytes"):
        _try_out(cls, arguments, groups[0]["params"][0].device, config.optimizer_type)
    elif config.optimizer_args:
        _try_arguments(cls, arguments, groups[0], config)
    optimizer = _construct(cls, groups, arguments, config)
    _set_mode(optimizer, training=True)
    return optimizer


def learning_rates(optimizer: Optimizer) -> dict[str, float]:
    """The rates in effect by group name, for the log; see :func:`rate_of`. Of groups with one name, the first's."""
    rates: dict[str, float] = {}
    for index, group in enumerate(optimizer.param_groups):
        rates.setdefault(str(group.get("name", f"group {index}")), rate_of(optimizer, group))
    return rates


def rate_of(optimizer: Optimizer, group: dict[str, Any]) -> float:
    """The rate in effect of one group: ``lr``, times ``d`` where the optimiser finds it, or Adafactor's own."""
    if not group.get("relative_step"):
        return float(group["lr"]) * float(group.get("d", 1.0))
    state = optimizer.state.get(group["params"][0])
    return float(optimizer._get_lr(group, state)) if state else 0.0  # type: ignore[attr-defined]


@contextmanager
def averaged_weights(optimizer: Optimizer) -> Iterator[None]:
    """While it lasts, parameters hold what is to be saved or sampled: Schedule-Free optimisers train other weights than
    those that they found (Defazio et al. 2024). Without effect on all others."""
    _set_mode(optimizer, training=False)
    try:
        yield
    finally:
        _set_mode(optimizer, training=True)


def is_schedule_free(optimizer: Optimizer) -> bool:
    """Whether the optimiser has a training and an evaluation mode, and brings its own schedule."""
    return callable(getattr(optimizer, "train", None)) and callable(getattr(optimizer, "eval", None))


def _set_mode(optimizer: Optimizer, training: bool) -> None:
    if is_schedule_free(optimizer):
        (optimizer.train if training else optimizer.eval)()  # type: ignore[attr-defined]


def _find_class(name: str, typed: Collection[str]) -> type[Optimizer]:
    folded = {known.lower(): known for known in NAMES}
    known = folded.get(name.lower(), name)
    if known in BUILT_IN:
        return BUILT_IN[known]
    path = CLASS_PATHS.get(known, known)
    if "." not in path:
        own = {n.lower(): n for n, c in vars(torch.optim).items() if inspect.isclass(c) and issubclass(c, Optimizer)}
        if path.lower() not in own or path.lower() == "optimizer":
            raise ConfigError(
                f"optimizer_type can't be {quoted(name)}; choose one of {', '.join(NAMES)}, "
                "an optimiser of torch.optim, or a class path such as package.module.Class."
            )
        path = f"torch.optim.{own[path.lower()]}"
    return load_class("optimizer_type", path, Optimizer, typed, name)


def _arguments(cls: type[Optimizer], config: OptimizerConfig) -> dict[str, Any]:
    """optimizer_args, checked by name, with sd-scripts' defaults where they differ from the class's."""
    arguments = dict(config.optimizer_args)
    rows = inspect.signature(cls.__init__).parameters
    names = [name for name in rows if name not in ("self", "params", "lr")]
    for name in arguments:
        if name == "lr":
            raise ConfigError("optimizer_args can't hold lr; set learning_rate, unet_lr or text_encoder_lr instead.")
        if name not in names and not any(row.kind is row.VAR_KEYWORD for row in rows.values()):
            raise ConfigError(
                f"optimizer_args: {cls.__name__} has no argument {quoted(name)}; it has {', '.join(sorted(names))}."
            )
    if config.optimizer_type.strip().lower().startswith("sgdnesterov"):
        arguments = {"momentum": 0.9, "nesterov": True, **arguments}
    if "relative_step" in names and arguments.get("warmup_init"):
        arguments["relative_step"] = True  # Adafactor's warm-up is a part of its own rates
    if "relative_step" in names:
        arguments.setdefault("relative_step", True)
    return arguments


def _one_rate(name: str, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The groups of an optimiser that finds one rate for everything: as in sd-scripts, the first one's factor counts.

    Such optimisers expect a factor near 1, and fail or pick one themselves where groups have several.
    """
    rates = list(dict.fromkeys(group["lr"] for group in groups if group["lr"]))
    if len(rates) > 1:
        logger.warning(
            "%s finds one learning rate for all parts: of %s only the first is used.", name, ", ".join(map(str, rates))
        )
    if rates and rates[0] <= 0.1:
        logger.warning("%s multiplies the learning rate that it finds by %s; 1 is usual.", name, rates[0])
    return [{**group, "lr": rates[0] if group["lr"] else group["lr"]} for group in groups]


def _construct(
    cls: type[Optimizer], groups: list[dict[str, Any]], arguments: dict[str, Any], config: OptimizerConfig
) -> Optimizer:
    """Instantiate; AdamW fused where this torch can (one pass without temporaries: fast, and no extra memory)."""
    try:
        if cls is torch.optim.AdamW and not {"fused", "foreach"} & arguments.keys():
            try:
                return cls([dict(group) for group in groups], fused=True, **arguments)
            except RuntimeError:  # this torch has no fused kernel for the device
                return cls(groups, **arguments)
        return cls(groups, **arguments)
    except Exception as error:  # arguments of every type reach classes that expect numbers
        raise _unsuitable(config, error) from error


def _try_arguments(
    cls: type[Optimizer], arguments: dict[str, Any], group: dict[str, Any], config: OptimizerConfig
) -> None:
    """One step on a throw-away parameter: some arguments are used, and fail, only there.

    Raises:
        ConfigError: quotes the arguments.
    """
    trial = torch.nn.Parameter(torch.ones(2, 2, device=group["params"][0].device))
    trial.grad = torch.ones_like(trial)
    try:
        optimizer = cls([{**group, "params": [trial]}], **arguments)
        _set_mode(optimizer, training=True)
        optimizer.step()
    except Exception as error:  # as above
        raise _unsuitable(config, error) from error


def _unsuitable(config: OptimizerConfig, error: Exception) -> ConfigError:
    return ConfigError(
        f"optimizer_args {quoted(config.optimizer_args)} don't suit {config.optimizer_type} ({first_line(error)}); "
        "change or remove them."
    )


def _try_out(cls: type[Optimizer], arguments: dict[str, Any], device: torch.device, name: str) -> None:
    """One step on a throw-away parameter: bitsandbytes shows only then that it can't work on a device.

    Raises:
        ConfigError: with what to choose instead.
    """
    trial = torch.nn.Parameter(torch.zeros(4096, device=device))  # the smallest that gets 8-bit states
    trial.grad = torch.ones_like(trial)
    try:
        cls([trial], **arguments).step()
        works = bool((trial != 0).all())
    except (TypeError, ValueError):
        return  # wrong arguments, which the real construction reports
    except Exception as error:  # bitsandbytes raises many kinds, from NameError to OSError
        raise ConfigError(_not_working(name, device, first_line(error))) from error
    if not works:
        raise ConfigError(_not_working(name, device, "a trial step changed nothing"))


def _not_working(name: str, device: torch.device, why: str) -> str:
    return f"optimizer_type {name} doesn't work on {device.type} here ({why}); choose {INSTEAD['bitsandbytes']}."
