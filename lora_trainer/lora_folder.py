"""Which file ``<lora:NAME:weight>`` means."""

from __future__ import annotations

import difflib
from pathlib import Path

from lora_trainer.errors import FileError, quoted, shortened


def find_lora(name: str, folder: Path) -> Path:
    """The file of a LoRA by its name alone: ``NAME.safetensors`` in ``folder`` or below it, as the WebUI looks it up.

    A name is compared with the names that are there and never made into a path, so none leads out of the folder.

    Raises:
        FileError: names the nearest that exist.
    """
    files = {path.stem: path for path in sorted(folder.rglob("*.safetensors"), reverse=True)}
    wanted = name.removesuffix(".safetensors")
    if wanted in files:
        return files[wanted]
    near = difflib.get_close_matches(name[:200], files, n=3, cutoff=0.5)
    hint = f"did you mean {shortened(' or '.join(near))}?" if near else "put its .safetensors file there."
    raise FileError(f"There is no LoRA named {quoted(name)} in {folder}; {hint}")


def check_inside(lora: Path, folder: Path) -> Path:
    """A LoRA's file, if it lies where ``<lora:NAME:weight>`` finds it.

    Raises:
        FileError: if it doesn't, or isn't there.
    """
    if not lora.is_file():
        raise FileError(f"The LoRA file {lora} doesn't exist; check the path.")
    if not lora.resolve().is_relative_to(folder.resolve()):
        raise FileError(f"{lora} isn't in the LoRA folder {folder}; move it there to test it.")
    return lora
