"""Which captioners there are, what each needs, and how one is opened from a folder of the user's; never a download."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from lora_trainer.errors import ConfigError, FileError, LoraTrainerError, first_line, quoted

if TYPE_CHECKING:
    from lora_trainer.hosts.base import Captioner

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_WORDS = ("tokenizer.json", "vocab.txt")


@dataclass(frozen=True)
class Kind:
    """A kind of captioner. ``files``: what its folder must hold, each the names of which one is enough."""

    name: str
    label: str
    gives: str  # "sentences" or "tags"
    files: tuple[tuple[str, ...], ...] = ()
    module: str = ""  # of this package, with a function ``opened(folder)``; "" if only a WebUI has it
    source: str = ""  # where people get the folder
    threshold: float = 0.0  # of a tag's probability, where nothing is said


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("blip", "BLIP", "sentences", (("config.json",), ("preprocessor_config.json",), _WORDS, _WEIGHTS),
             "blip", "Salesforce/blip-image-captioning-base"),
        Kind("florence-2", "Florence-2", "sentences",
             (("config.json",), ("preprocessor_config.json", "processor_config.json"), ("tokenizer.json",), _WEIGHTS),
             "florence", "florence-community/Florence-2-base"),
        Kind("wd14", "WD14 tagger", "tags", (("model.onnx",), ("selected_tags.csv",)), "wd14",
             "SmilingWolf/wd-vit-tagger-v3", 0.35),
        Kind("deepbooru", "DeepBooru", "tags", threshold=0.5),
    )
}  # fmt: skip


def kind_of(name: str) -> Kind:
    """The kind of that name.

    Raises:
        ConfigError: if there is none.
    """
    if name not in KINDS:
        raise ConfigError(f"captioner can't be {quoted(name)}; give one of {', '.join(KINDS)}.")
    return KINDS[name]


def check_folder(kind: Kind, folder: Path | None) -> Path:
    """The folder that holds the kind's model.

    Raises:
        ConfigError, FileError: one sentence that names what is missing.
    """
    if not kind.module:
        raise ConfigError(f"{kind.label} is part of a WebUI; outside of one, use {_with_folders()} from a folder.")
    wanted = ", ".join(" or ".join(names) for names in kind.files)
    whence = f"the folder of {kind.source} from huggingface.co, for example"
    if folder is None:
        raise ConfigError(f"{kind.label} needs the folder with its model ({wanted}): {whence}.")
    missing = [" or ".join(names) for names in kind.files if not any((folder / name).is_file() for name in names)]
    if missing:
        where = f"{folder} has no {', no '.join(missing)}" if folder.is_dir() else f"The folder {folder} doesn't exist"
        raise FileError(f"{where}; {kind.label} needs {wanted}: {whence}.")
    return folder


def opened(name: str, folder: Path | None) -> Captioner:
    """A captioner with the model of that folder.

    Raises:
        LoraTrainerError: one sentence, if files or packages are missing or the model can't be read.
    """
    kind = kind_of(name)
    found = check_folder(kind, folder)
    open_it: Callable[[Path], Captioner] = import_module(f"lora_trainer.dataset.captioners.{kind.module}").opened
    try:
        return open_it(found)
    except LoraTrainerError:
        raise
    except Exception as error:  # whatever a library says of files that aren't what their names say
        raise FileError(
            f"{found} can't be opened as {kind.label} ({first_line(error)}); give {kind.source} or one of its kind."
        ) from error


def _with_folders() -> str:
    return " or ".join(kind.name for kind in KINDS.values() if kind.module)
