"""What the test asks the model for. A prompt is text with ``{lora}`` where the ``<lora:NAME:weight>`` tag goes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lora_trainer.errors import ConfigError, FileError, quoted

DEFAULT_STRENGTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4)
DEFAULT_STRENGTH = 0.8  # the usual starting point; the middle of the 0.7-0.9 that a well-trained LoRA works best at
LORA, TRIGGER = "{lora}", "{trigger}"
WEIGHT = r"([+-]?(?:\d+(?:\.\d*)?|\.\d+))"


@dataclass(frozen=True)
class Prompt:
    """One prompt and the strength it is meant to be used at."""

    text: str
    strength: float = DEFAULT_STRENGTH

    def at(self, name: str, strength: float) -> str:
        """The prompt as the WebUI takes it, with the LoRA ``name`` at ``strength``."""
        return self.text.replace(LORA, lora_tag(name, strength))


def strength_text(strength: float) -> str:
    """A strength as people write it: 0, 0.75, 1.0."""
    return "0" if strength == 0 else f"{strength:.1f}" if round(strength, 1) == strength else f"{strength:g}"


def lora_tag(name: str, strength: float) -> str:
    """``<lora:NAME:0.8>``"""
    return f"<lora:{name}:{strength_text(strength)}>"


def strength_prompt(trigger: str, caption: str = "") -> Prompt:
    """The strength sweep's prompt: a caption with the trigger (put first if it is missing), or the trigger alone."""
    caption = caption.strip()
    if not caption:
        return Prompt(f"{LORA} {trigger}".strip())
    if trigger and trigger.lower() not in caption.lower():
        caption = f"{trigger}, {caption}"
    return Prompt(f"{LORA} {caption}")


def integration_prompts(trigger: str, prompts: Iterable[tuple[str, float]]) -> tuple[Prompt, ...]:
    """The prompts, texts and strengths, with the trigger filled in."""
    return tuple(Prompt(text.replace(TRIGGER, trigger), strength) for text, strength in prompts)


def parse_prompt(line: str, name: str, trigger: str) -> Prompt:
    """Read one line of a prompts file.

    The LoRA's own tag ``<lora:NAME:0.7>`` sets place and strength; ``{lora}`` sets the place only; without either the
    tag is put first. ``{trigger}`` becomes the trigger. Tags of other LoRAs stay as they are.

    Raises:
        ConfigError: quotes a line whose tag has more than one plain weight, or that asks for the LoRA twice.
    """
    own = re.findall(rf"<(?:lora|lyco):{re.escape(name)}(?::[^>]*)?>", line)
    if len(own) + line.count(LORA) > 1:
        raise ConfigError(f"The prompt {quoted(line)} has this LoRA twice; write <lora:{name}:weight> or {LORA} once.")
    strength = DEFAULT_STRENGTH
    if own:
        found = re.fullmatch(rf"<\w+:{re.escape(name)}(?::{WEIGHT})?>", own[0])
        if found is None:
            raise ConfigError(
                f"{own[0]} in the prompt {quoted(line)} can't be tested; write <lora:{name}:weight> with one number."
            )
        strength = float(found[1] or 1.0)
        line = line.replace(own[0], LORA)
    elif LORA not in line:
        line = f"{LORA} {line}"
    return Prompt(line.replace(TRIGGER, trigger), strength)


def read_prompts(lines: Iterable[str], name: str, trigger: str) -> tuple[Prompt, ...]:
    """Read prompts, one a line; empty lines and lines that begin with ``#`` don't count.

    Raises:
        ConfigError: if a line's tag for this LoRA can't be tested, or there is no prompt.
    """
    prompts = tuple(parse_prompt(line, name, trigger) for line in _telling(lines))
    if not prompts:
        raise ConfigError("prompts holds no prompt; write one prompt per line.")
    return prompts


def read_prompts_file(path: Path) -> list[str]:
    """The lines of a prompts file, for :func:`read_prompts`.

    Raises:
        FileError: if the file can't be read, isn't text or holds no prompt.
    """
    try:
        lines = _telling(path.read_text(encoding="utf-8-sig").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it isn't UTF-8 text"
        raise FileError(f"Can't read the prompts file {path}: {reason}.") from error
    if not lines:
        raise FileError(f"The prompts file {path} holds no prompt; write one prompt per line.")
    return lines


def _telling(lines: Iterable[str]) -> list[str]:
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def parse_strengths(parts: Iterable[str]) -> tuple[float, ...]:
    """Read strengths; 0, the base model, is added if it's missing because everything is compared with it.

    Raises:
        ConfigError: quotes what isn't a number between -2 and 4.
    """
    strengths = set()
    for part in parts:
        try:
            strength = float(part)
        except ValueError:
            strength = float("nan")
        if not -2 <= strength <= 4:
            raise ConfigError(
                f"strengths can't be {quoted(part)}; give numbers between -2 and 4, such as 0,0.4,0.8,1.0."
            )
        strengths.add(strength)
    return tuple(sorted(strengths | {0.0}))
