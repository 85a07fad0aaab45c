"""Errors whose text is shown to the user as it is: one sentence that names the thing and the remedy."""

from __future__ import annotations

import reprlib
from typing import Any

LONGEST = 100  # characters of a value that a message quotes: about a line


def shown(name: object) -> str:
    """A file name as text that can be written anywhere: bytes that aren't UTF-8 are escaped, such as ``caf\\xe9.png``.

    Archives made by old programs leave such names on Linux; Python keeps their bytes as lone surrogates, which neither
    UTF-8 nor JSON can hold.
    """
    text = str(name)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        try:
            return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        except UnicodeEncodeError:  # a lone surrogate that stands for no byte, as Windows allows
            return text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text


class LoraTrainerError(Exception):
    """Base of every error that a user can cause or cure; the CLI and the tab show its text without a traceback."""

    def __str__(self) -> str:
        return shown(super().__str__())


class ConfigError(LoraTrainerError):
    """A setting is unknown, has a wrong type or range, or contradicts another one."""


class DatasetError(LoraTrainerError):
    """The dataset folder holds nothing to train on, or something that can't be read."""


class LooseImagesError(DatasetError):
    """The folder holds images, but not in a ``<repeats>_<trigger>`` folder."""


class UnsupportedModelError(LoraTrainerError):
    """The checkpoint or the WebUI's state is one that can't be trained."""


class FileError(LoraTrainerError):
    """A file can't be read or written, or isn't what its name says."""


class TrainingDivergedError(LoraTrainerError):
    """Loss, gradients or latents became NaN or infinite, or the loss is far from the base model's.

    Attributes:
        good: the number of steps after which all was well still; None where the LoRA isn't to blame.
    """

    def __init__(self, sentence: str, good: int | None = None) -> None:
        super().__init__(sentence)
        self.good = good


class HostBusyError(LoraTrainerError):
    """The host can't lend its model now, for instance because another run holds it.

    ``choices`` are the ways to go on, as in :class:`NameTakenError`: "queue".
    """

    def __init__(self, sentence: str, choices: tuple[str, ...] = ()) -> None:
        super().__init__(sentence)
        self.choices = choices


class OtherCheckpointError(HostBusyError):
    """A run is meant for another checkpoint than the one that is loaded."""

    def __init__(self, name: str, wanted: str, loaded: str) -> None:
        super().__init__(f"{name} is for {wanted}, but {loaded} is loaded. Load {wanted}, then start it again.")


class NameTakenError(ConfigError):
    """Something of that name is there already; ``choices`` are the ways to go on, as the options that choose them."""

    def __init__(self, sentence: str, choices: tuple[str, ...] = ()) -> None:
        super().__init__(sentence)
        self.choices = choices  # of "resume", "overwrite", "resume+overwrite"


def shortened(text: str, most: int = LONGEST) -> str:
    """A text as one line of a message: white space folded, what can't be written replaced, the middle left out."""
    line = " ".join(text.split()) if len(text) < 10 * most else text
    line = "".join(char if char.isprintable() else "�" for char in line[: 2 * most])
    return line if len(line) <= most else f"{line[: most - 1]}…"


def quoted(value: Any, most: int = LONGEST) -> str:
    """A value as a message quotes it: like ``repr``, but never longer than a line and never failing."""
    if isinstance(value, str):
        return repr(value if len(value) <= most else f"{value[: most - 1]}…")
    short = reprlib.Repr()
    short.maxstring = short.maxlong = short.maxother = most // 2
    try:
        return shortened(short.repr(value), most)
    except (ValueError, RecursionError):  # a number of thousands of digits, a list in a list in a list …
        return f"a {type(value).__name__} that is too long to show"


def memory_problem(error: BaseException) -> str:
    """What helps where memory ran out, the GPU's or the machine's; empty for any other error."""
    said = str(error).lower()
    if not isinstance(error, MemoryError) and "out of memory" not in said and "can't allocate memory" not in said:
        return ""
    return (
        "There isn't enough memory: use a smaller resolution, batch size or network_dim, switch gradient checkpointing "
        "on, or train the UNet only."
    )


def unexpected(error: BaseException) -> str:
    """An error that nobody foresaw as one sentence; the log has its traceback."""
    text = " ".join(str(error).split())[:300] or "no message"
    told = f"It ended with an unexpected {type(error).__name__}: {text}. The log has the details."
    return memory_problem(error) or told


def first_line(error: BaseException) -> str:
    """What an error of somebody else's says, as part of a sentence."""
    return shortened(next(iter(str(error).strip().splitlines()), "") or type(error).__name__, 200)


def counted(number: int, noun: str) -> str:
    """``1 image``, ``2 images``."""
    return f"{number} {noun}{'s' * (number != 1)}"
