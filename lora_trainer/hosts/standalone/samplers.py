"""Samplers by the names that sd-scripts and AUTOMATIC1111 give them, on diffusers' schedulers."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch
from torch import Tensor

from lora_trainer.errors import ConfigError, first_line, quoted
from lora_trainer.families import PredictionType

LEADING = {"timestep_spacing": "leading", "steps_offset": 1}
LINEAR = {"timestep_spacing": "linspace"}


@dataclass(frozen=True)
class Sampler:
    """One sampler: its label in AUTOMATIC1111 and the scheduler that does it."""

    label: str
    scheduler: str  # a class of diffusers
    arguments: dict[str, Any] = field(default_factory=dict)
    karras: bool = False


SAMPLERS = {
    "euler_a": Sampler("Euler a", "EulerAncestralDiscreteScheduler", LINEAR),
    "euler": Sampler("Euler", "EulerDiscreteScheduler", LINEAR),
    "heun": Sampler("Heun", "HeunDiscreteScheduler", LINEAR),
    "dpm2": Sampler("DPM2", "KDPM2DiscreteScheduler", LINEAR),
    "dpm2_a": Sampler("DPM2 a", "KDPM2AncestralDiscreteScheduler", LINEAR),
    "dpm++_2m": Sampler("DPM++ 2M", "DPMSolverMultistepScheduler", {**LINEAR, "algorithm_type": "dpmsolver++"}),
    "dpm++_2m_sde": Sampler(
        "DPM++ 2M SDE", "DPMSolverMultistepScheduler", {**LINEAR, "algorithm_type": "sde-dpmsolver++"}
    ),
    "dpm++_2s": Sampler("DPM++ 2S", "DPMSolverSinglestepScheduler"),
    "dpmsolver": Sampler(
        "DPM Solver",
        "DPMSolverMultistepScheduler",
        {**LINEAR, "algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"},
    ),
    "lms": Sampler("LMS", "LMSDiscreteScheduler", LINEAR),
    "unipc": Sampler("UniPC", "UniPCMultistepScheduler", LINEAR),
    "ddim": Sampler("DDIM", "DDIMScheduler", {**LEADING, "clip_sample": False, "set_alpha_to_one": False}),
    "pndm": Sampler("PLMS", "PNDMScheduler", {**LEADING, "skip_prk_steps": True}),
}
ALIASES = {"plms": "pndm", "dpmsolverpp": "dpm++_2m", "dpmsingle": "dpm++_2s"}  # as sd-scripts and others call them


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("++", "pp"))


def find_sampler(name: str) -> Sampler:
    """The sampler called ``name`` (``euler_a``, ``k_euler_a``, ``Euler a``, ``dpmpp_2m``, ``DPM++ 2M Karras``, …).

    Raises:
        ConfigError: lists the valid names.
    """
    known = {_plain(key): sampler for key, sampler in SAMPLERS.items()}
    known.update({alias: SAMPLERS[key] for alias, key in ALIASES.items()})
    plain = _plain(name)
    base = plain.removesuffix("karras")
    found = known.get(base) or known.get(base.removeprefix("k"))
    if found is None or (base != plain and not _takes(found, "use_karras_sigmas")):
        raise ConfigError(
            f"There is no sampler {quoted(name)}; choose one of {', '.join(SAMPLERS)} (some also with _karras)."
        )
    return Sampler(found.label, found.scheduler, found.arguments, karras=base != plain)


def _takes(sampler: Sampler, argument: str) -> bool:
    return argument in inspect.signature(getattr(diffusers, sampler.scheduler).__init__).parameters


def make_scheduler(sampler: Sampler, alphas_cumprod: Tensor, prediction_type: PredictionType) -> Any:
    """diffusers' scheduler for a noise schedule ᾱ [1000]; a last ᾱ of 0 (zero terminal SNR) is allowed."""
    zero_snr = float(alphas_cumprod[-1]) == 0
    bounded = alphas_cumprod.double().clamp(min=2.0**-24)  # ᾱ = 0 would be an infinite sigma
    previous = torch.cat([torch.ones(1, dtype=torch.float64), bounded[:-1]])
    arguments = {
        **sampler.arguments,
        "trained_betas": (1 - bounded / previous).tolist(),
        "prediction_type": prediction_type,
    }
    if sampler.karras:
        arguments["use_karras_sigmas"] = True
    if zero_snr and "timestep_spacing" in arguments:
        arguments["timestep_spacing"] = "trailing"  # sampling has to begin at the last timestep
    try:
        return getattr(diffusers, sampler.scheduler)(**arguments)
    except ImportError as error:  # of a package that diffusers needs for this one alone
        raise ConfigError(f"The sampler {sampler.label} can't be used here ({first_line(error)}).") from error
