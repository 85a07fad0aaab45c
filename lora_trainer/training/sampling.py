"""Sample images during training: kohya's prompt lines, fixed seeds, the live LoRA."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import torch

from lora_trainer.config import SampleConfig
from lora_trainer.errors import ConfigError, first_line, memory_problem, quoted, shortened
from lora_trainer.files import given_path, replaced
from lora_trainer.hosts.base import GenerateRequest, TakenModel
from lora_trainer.memory import release
from lora_trainer.seeds import derive
from lora_trainer.training.events import Event, Notice, Sampled

if TYPE_CHECKING:
    from lora_trainer.network.network import LoraNetwork


RANGES = {"width": (1, 8192), "height": (1, 8192), "steps": (1, 1000), "cfg_scale": (0, 100), "seed": (-1, 2**63 - 1)}

TOO_LARGE = "there wasn't enough memory; a smaller picture (--w and --h in sample_prompts) needs less"


class _LineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(
            f"A line of sample_prompts can't be read: {shortened(message)}; docs/options.md shows the form."
        )


def _line_parser() -> _LineParser:
    parser = _LineParser(add_help=False, allow_abbrev=False)
    parser.add_argument("words", nargs="*")
    for flag, name, kind in (
        ("--n", "negative_prompt", str), ("--w", "width", int), ("--h", "height", int), ("--d", "seed", int),
        ("--l", "cfg_scale", float), ("--s", "steps", int), ("--ss", "sampler", str),
    ):  # fmt: skip
        parser.add_argument(flag, dest=name, type=kind, nargs="+" if name == "negative_prompt" else None)
    return parser


def parse_line(line: str, default: GenerateRequest) -> GenerateRequest:
    """Read one line in sd-scripts' form: ``a photo --n blurry --w 512 --h 512 --d 1 --l 7 --s 20 --ss euler_a``."""
    lexer = shlex.shlex(line, posix=False)
    lexer.whitespace_split, lexer.commenters, lexer.quotes = True, "", ""
    words = list(lexer)
    start = next((i for i, word in enumerate(words) if word.startswith("--")), len(words))
    given = {k: v for k, v in vars(_line_parser().parse_args(words[start:])).items() if v is not None and k != "words"}
    for name, (least, most) in RANGES.items():
        if name in given and not least <= given[name] <= most:
            raise ConfigError(f"{name} {quoted(given[name])} in sample_prompts is outside {least} to {most}.")
    if "negative_prompt" in given:
        given["negative_prompt"] = " ".join(given["negative_prompt"])
    for side in ("width", "height"):
        if side in given:
            given[side] = max(64, given[side] // 8 * 8)
    return replace(default, prompt=" ".join(words[:start]), **given)


def sample_requests(config: SampleConfig, fallback: str, seed: int, side: int) -> list[GenerateRequest]:
    """The pictures to make at each sampling point; seeds are fixed, so that points can be compared.

    Args:
        fallback: the prompt if none is configured (a caption of the dataset).
        side: default width and height in pixels.
    """
    text = config.sample_prompts
    if text and "\n" not in text and text.lower().endswith(".txt"):
        try:
            text = given_path(text, "sample_prompts").read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it isn't text in UTF-8"
            raise ConfigError(
                f"sample_prompts {shortened(text)} can't be read ({reason}); give another file."
            ) from error
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")] or [fallback]
    requests = []
    for index, line in enumerate(lines):
        default = GenerateRequest(
            "", seed=derive(seed, "sample", index) % 2**32, sampler=config.sample_sampler, width=side, height=side
        )
        requests.append(parse_line(line, default))
    return requests


@dataclass
class Sampler:
    """Makes the sample images of a run."""

    requests: list[GenerateRequest]
    folder: Path
    config: SampleConfig

    def wanted(self, step: int, epoch: int, first: bool, epoch_ended: bool) -> bool:
        """Whether this moment is a sampling point."""
        every = self.config
        if first:
            return every.sample_at_first and bool(every.sample_every_n_epochs or every.sample_every_n_steps)
        if every.sample_every_n_epochs:  # sd-scripts: epochs win over steps
            return epoch_ended and epoch % every.sample_every_n_epochs == 0
        return bool(every.sample_every_n_steps) and step % every.sample_every_n_steps == 0

    def present(self, made: Sequence[tuple[int, int, Path]]) -> tuple[tuple[int, Path, str], ...]:
        """Samples of before, with their prompts."""
        return tuple((step, path, self.requests[n].prompt) for step, n, path in made if n < len(self.requests))

    def make(self, model: TakenModel, network: LoraNetwork, step: int) -> Iterator[Event]:
        """Generate and save each picture; one that fails is a notice and never ends the training."""
        for index, request in enumerate(self.requests):
            path, failed = self.folder / f"step{step:06d}_{index:02d}.png", ""
            try:
                with torch.no_grad(), network, network.inference():
                    made = model.generate(request)
                with replaced(path) as temporary:
                    made.image.save(temporary, format="PNG")
            except Exception as error:  # a host may raise anything, and the training is worth more than a picture
                failed = TOO_LARGE if memory_problem(error) else first_line(error)
            if failed:
                release(model.device)  # what the error's frames held is free by now
                yield Notice(f"Sample image {index + 1} at step {step} failed: {failed}")
                continue
            yield Sampled(made.image, path, request.prompt, step)
