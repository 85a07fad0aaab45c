"""Tools for finished LoRAs, from the Result page: the same as the command ``lora``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lora_trainer.errors import ConfigError, FileError, LoraTrainerError, quoted
from lora_trainer.files import name_problem
from lora_trainer.lora_folder import find_lora
from lora_trainer.ui import views
from lora_trainer.ui.desk import Desk
from lora_trainer.ui.forms import Answer, Page

if TYPE_CHECKING:
    from lora_trainer.lora_tools.files import Made
    from lora_trainer.lora_tools.ranks import Wanted

TOOLS = {
    "merge": "Merge: several LoRAs as one, each with its strength",
    "resize": "Resize: fewer ranks, as close as they allow; LoHa and LoKr become LoRA",
    "bake": "Bake: put a strength into the file, so that 1 means it",
    "convert": "Convert: keys for other programs",
    "extract": "Extract: a LoRA from two checkpoints, what the second has learned beside the first",
    "show": "Show: type, ranks and metadata",
}


@dataclass(frozen=True)
class Asked:
    """The panel's inputs as typed."""

    tool: str
    files: str
    strengths: str
    rank: str
    keep: str
    form: str
    name: str


def run(desk: Desk, page: Page, *inputs: object) -> Answer:
    """Do it; the answer says what was written, or what is wrong."""
    asked = Asked(*("" if value is None else str(value).strip() for value in inputs))
    try:
        if asked.tool not in _RUN:
            raise ConfigError("Which tool? Choose one.")
        files = [line.strip().strip('"') for line in asked.files.splitlines() if line.strip()]
        lines = _RUN[asked.tool](desk, asked, files)
    except LoraTrainerError as error:
        return Answer({"tools_answer": views.problem(str(error))})
    return Answer({"tools_answer": views.note(*lines)})


def _merge(desk: Desk, asked: Asked, files: list[str]) -> list[str]:
    from lora_trainer.lora_tools.merge import merge

    wanted = _wanted(asked) if asked.rank or asked.keep else None
    ratios = _numbers(asked.strengths or " ".join("1" for _ in files), "The strengths")
    return _told(desk, merge([_lora(desk, one) for one in files], ratios, _output(desk, asked), wanted))


def _resize(desk: Desk, asked: Asked, files: list[str]) -> list[str]:
    from lora_trainer.lora_tools.merge import resize

    return _told(desk, resize(_lora(desk, *_some(files, 1)), _wanted(asked), _output(desk, asked)))


def _bake(desk: Desk, asked: Asked, files: list[str]) -> list[str]:
    from lora_trainer.lora_tools.merge import bake

    strength = _numbers(asked.strengths, "The strength")
    if len(strength) != 1:
        raise ConfigError("Which strength? Give one number.")
    return _told(desk, bake(_lora(desk, *_some(files, 1)), strength[0], _output(desk, asked)))


def _convert(desk: Desk, asked: Asked, files: list[str]) -> list[str]:
    from lora_trainer.lora_tools.convert import convert

    return _told(desk, convert(_lora(desk, *_some(files, 1)), asked.form, _output(desk, asked)))


def _extract(desk: Desk, asked: Asked, files: list[str]) -> list[str]:
    from lora_trainer.lora_tools.extract import extract
    from lora_trainer.lora_tools.ranks import Wanted

    if desk.job.running:
        raise ConfigError("A training or a test is running; extract when it has ended, since both need much memory.")
    base, tuned = (_checkpoint(desk, one) for one in _some(files, 2))
    wanted = _wanted(asked if asked.rank or asked.keep else Asked(**{**vars(asked), "rank": "16"}))
    return _told(desk, extract(base, tuned, Wanted(wanted.rank, 0, wanted.rule, wanted.value), _output(desk, asked)))


def _show(desk: Desk, asked: Asked, files: list[str]) -> list[str]:
    from lora_trainer.lora_tools.show import show

    shown = show(_lora(desk, *_some(files, 1)))
    return [*shown.lines(), *(f"{name}: {value[:300]}" for name, value in shown.metadata.items())]


_RUN: dict[str, Callable[[Desk, Asked, list[str]], list[str]]] = {
    "merge": _merge, "resize": _resize, "bake": _bake, "convert": _convert, "extract": _extract, "show": _show,
}  # fmt: skip


def _told(desk: Desk, made: Made) -> list[str]:
    desk.job.host.refresh_loras([made.path])
    return [*made.lines, f"{made.modules} modules written to {made.path}."]


def _some(files: list[str], count: int) -> list[str]:
    if len(files) != count:
        raise ConfigError(f"This tool takes {count} file{'s' * (count > 1)}, one a line; {len(files)} are given.")
    return files


def _lora(desk: Desk, text: str) -> Path:
    """A LoRA by its name in the LoRA folder, or by its path."""
    path = Path(text).expanduser()
    return path if path.is_file() else find_lora(text, desk.job.host.lora_dir)


def _checkpoint(desk: Desk, text: str) -> Path:
    """A checkpoint by its path, or by its file name in the WebUI's folder."""
    folder = desk.job.host.checkpoint_dir()
    places = [Path(text).expanduser(), *([folder / text] if folder else [])]
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        raise FileError(
            f"There is no checkpoint {quoted(text)}; give its path, or its file name in the WebUI's folder."
        )
    return found


def _output(desk: Desk, asked: Asked) -> Path:
    name = asked.name.removesuffix(".safetensors")
    if not name or (why := name_problem(name)):
        raise ConfigError(f"A file can't have the name {quoted(name)}: {why}." if name else "Give the result a name.")
    return desk.job.host.lora_dir / f"{name}.safetensors"


def _wanted(asked: Asked) -> Wanted:
    from lora_trainer.lora_tools.ranks import wanted_by

    if asked.rank and not (asked.rank.isdecimal() and 0 < int(asked.rank) < 10**6):
        raise ConfigError(f"The rank can't be {quoted(asked.rank)}; give a whole number of at least 1.")
    keep = _numbers(asked.keep, "The share that is kept")
    if len(keep) > 1:
        raise ConfigError("Give one share that is kept, such as 0.95.")
    return wanted_by(int(asked.rank) if asked.rank else None, None, {"sv_fro": keep[0]} if keep else {})


def _numbers(text: str, what: str) -> list[float]:
    try:
        return [float(word) for word in text.replace(",", " ").split()]
    except ValueError:
        raise ConfigError(f"{what} can't be {quoted(text)}; give numbers, such as 0.8.") from None
