"""``<lora:NAME:weight>`` in prompts, where its file is, and the infotext of a picture; all as in AUTOMATIC1111."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_trainer.errors import ConfigError
from lora_trainer.hosts.base import GenerateRequest

TAG = re.compile(r"<(?:lora|lyco):([^>]+)>")


@dataclass(frozen=True)
class LoraTag:
    """A LoRA that a prompt asks for, with its strength on the text encoders and on the UNet."""

    name: str
    text_encoder: float
    unet: float


def split_prompt(prompt: str) -> tuple[str, tuple[LoraTag, ...]]:
    """The prompt without its LoRA tags, and the tags.

    ``<lora:NAME>`` is strength 1, ``<lora:NAME:0.8>`` 0.8 on both parts, ``<lora:NAME:0.5:1>`` text encoders 0.5 and
    UNet 1; ``te=`` and ``unet=`` name them.

    Raises:
        ConfigError: quotes a tag whose strength isn't a number.
    """
    tags = tuple(_parse_tag(match[0], match[1]) for match in TAG.finditer(prompt))
    return TAG.sub("", prompt), tags


def _parse_tag(tag: str, inner: str) -> LoraTag:
    name, *rest = inner.split(":")
    positional = [part for part in rest if "=" not in part]
    named = dict(part.split("=", 1) for part in rest if "=" in part)
    try:
        strengths = [float(part) for part in positional[:2]] or [1.0]
        text_encoder = float(named.get("te", strengths[0]))
        unet = float(named.get("unet", strengths[1] if len(strengths) > 1 else text_encoder))
    except ValueError:
        raise ConfigError(f"The strength in {tag} isn't a number; write for instance <lora:{name}:0.8>.") from None
    return LoraTag(name.strip(), text_encoder, unet)


def infotext(
    request: GenerateRequest, sampler: str, schedule: str, model: str, sha256: str, clip_skip: int, extra: Sequence[str]
) -> str:
    """What reproduces a picture, in AUTOMATIC1111's form, which its "PNG Info" reads."""
    facts = [
        f"Steps: {request.steps}",
        f"Sampler: {sampler}",
        *([f"Schedule type: {schedule}"] if schedule else []),
        f"CFG scale: {request.cfg_scale:g}",
        f"Seed: {request.seed}",
        f"Size: {request.width}x{request.height}",
        *([f"Model hash: {sha256[:10]}"] if sha256 else []),
        f"Model: {Path(model).stem}",
        *([f"Clip skip: {clip_skip}"] if clip_skip > 1 else []),
        *extra,
    ]
    negative = [f"Negative prompt: {request.negative_prompt}"] if request.negative_prompt else []
    return "\n".join([request.prompt, *negative, ", ".join(facts)])
