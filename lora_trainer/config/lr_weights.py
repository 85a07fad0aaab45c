"""Learning-rate factors by block, as sd-scripts' ``down_lr_weight`` and its like give them."""

from __future__ import annotations

import math

from lora_trainer.errors import ConfigError, quoted

CURVES = ("cosine", "sine", "linear", "reverse_linear", "zeros")
WITHOUT_CURVES = ("mid_lr_weight",)


def curve_weights(name: str, length: int, base: float = 0.0) -> list[float]:
    """One of sd-scripts' curves over ``length`` blocks, raised by ``base``."""
    rising = [index / (length - 1) for index in range(length)]
    if name in ("cosine", "sine"):
        rising = [math.sin(math.pi / 2 * share) for share in rising]
    if name in ("cosine", "reverse_linear"):
        rising.reverse()
    return [base + (0.0 if name == "zeros" else value) for value in rising]


def read_lr_weights(name: str, text: str, length: int) -> list[float]:
    """The factors of ``length`` blocks that the option ``name`` gives; as many as it gives where it is a list.

    Raises:
        ConfigError: if it is neither a list of numbers nor a curve.
    """
    curves = () if name in WITHOUT_CURVES else CURVES
    curve, _, base = (part.strip() for part in text.partition("+"))
    try:
        if curve in curves:
            weights = curve_weights(curve, length, float(base) if base else 0.0)
        else:
            weights = [float(part) for part in text.split(",")] if text.strip() else []
    except ValueError:
        weights = [math.nan]
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        others = f", or one of {', '.join(curves)}, such as {curves[1]}+0.25" if curves else ""
        raise ConfigError(f"{name} can't be {quoted(text)}; give numbers of at least 0, separated by commas{others}.")
    return weights
