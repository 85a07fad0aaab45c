"""What the checkpoint at hand calls for, each with its reason; offered to the user, never done over their heads.

What the models are like is told by their authors: the model cards of NoobAI-XL and Illustrious-XL (OnomaAI), of
Animagine XL (Cagliostro Lab) and of Pony Diffusion V6 XL (PurpleSmartAI).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lora_trainer.config.checks import finds_one_rate
from lora_trainer.families import traits

if TYPE_CHECKING:
    from lora_trainer.config import RunConfig
    from lora_trainer.hosts.base import Glance

USUAL_RATE, LOWEST_RATE, HIGHEST_RATE = 1e-4, 5e-5, 5e-4  # of SDXL's UNet, with an optimiser of the Adam kind
_V_IN_NAME = re.compile(r"v[-_ ]?pred", re.IGNORECASE)


@dataclass(frozen=True)
class Advice:
    """A sentence with "because"; ``options`` are what it would set, none where it is about something else."""

    text: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Known:
    """A family of SDXL models that were trained on booru tags, by the words in their names."""

    label: str
    sign: re.Pattern[str]
    quality: str  # tags that its pictures need


KNOWN = (  # the first that is found: NoobAI is an Illustrious
    Known("NoobAI-XL", re.compile("noob", re.I), "masterpiece, best quality, newest, absurdres, highres"),
    Known("Illustrious-XL", re.compile("illustrious|illustrij|ilxl", re.I), "masterpiece, best quality"),
    Known("Pony Diffusion", re.compile("pony(?!tail)|pdxl", re.I), "score_9, score_8_up, score_7_up"),
    Known("Animagine XL", re.compile("animagine", re.I), "masterpiece, high score, great score, absurdres"),
)


def advice(glance: Glance | None, config: RunConfig) -> list[Advice]:
    """What to change for the loaded checkpoint, and what else to know; settings that suit it already aren't named."""
    if glance is None or glance.refusal:
        return []
    offered = [*_diffusion(glance, config), *_known(glance, config)]
    return [one for one in offered if not one.options or _differ(config, one.options)]


def _differ(config: RunConfig, options: Mapping[str, Any]) -> bool:
    return any(config.value(name) != value for name, value in options.items())


def _diffusion(glance: Glance, config: RunConfig) -> Iterator[Advice]:
    """How the model was trained to predict, and on which noise."""
    marks, predicts_v = glance.marks, glance.prediction_type == "v_prediction"
    named = next((name for name in marks.names if _V_IN_NAME.search(name)), "")
    reason = marks.v_prediction or (f"{named} says so" if named and traits(glance.family).sized else "")
    if predicts_v and config.loss.v_parameterization is False:
        yield Advice("Train with v-prediction, because the checkpoint is loaded as such a model.",
                     {"v_parameterization": None})  # fmt: skip
    elif predicts_v:
        yield Advice(
            f"It is trained with v-prediction, because {reason or 'the checkpoint is loaded as such a model'}."
        )
    elif reason and not predicts_v:
        yield Advice(
            f"Train with v-prediction, because {reason}, although it is loaded as a model that predicts noise: "
            "pictures are only right in a WebUI that knows such models, or with a config (.yaml) beside the file.",
            {"v_parameterization": True},
        )
    if marks.zero_snr:
        if config.loss.zero_terminal_snr:
            yield Advice(f"It is trained with zero terminal SNR, because {marks.zero_snr}.")
        yield Advice(f"Train with zero terminal SNR, because {marks.zero_snr}.", {"zero_terminal_snr": True})
        if config.loss.noise_offset:
            yield Advice("Train without noise offset, because zero terminal SNR reaches dark and bright by itself.",
                         {"noise_offset": 0.0})  # fmt: skip


def _known(glance: Glance, config: RunConfig) -> Iterator[Advice]:
    """What models that were made from SDXL for drawings are used to."""
    if not traits(glance.family).sized:
        return
    found = ((known, name) for known in KNOWN for name in glance.marks.names if known.sign.search(name))
    known, name = next(found, (None, ""))
    if known is None:
        return
    because = f"because {name} is an SDXL of the {known.label} kind"
    yield Advice(
        f"Caption with tags and shuffle them behind the trigger word, {because}, which has learned tags in any order.",
        {"shuffle_caption": True, "keep_tokens": max(1, config.caption.keep_tokens)},
    )
    rate, usual = config.unet_rate, LOWEST_RATE <= config.unet_rate <= HIGHEST_RATE
    if config.trains_unet and not usual and not finds_one_rate(config.optimizer.optimizer_type):
        yield Advice(
            f"Train the UNet at {USUAL_RATE:g} instead of {rate:g}, {because}: what is usual there is "
            f"{LOWEST_RATE:g} to {HIGHEST_RATE:g}.",
            {"unet_lr": USUAL_RATE},
        )
    yield Advice(f"Begin prompts with {known.quality}, {because}; captions don't need these tags.")
    yield Advice(f"Leave clip skip as it is, {because}: SDXL always reads the last layer but one (clip skip 2).")
