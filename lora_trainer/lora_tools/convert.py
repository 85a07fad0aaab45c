"""A LoRA's keys in other programs' formats."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from lora_trainer.errors import ConfigError, FileError
from lora_trainer.lora_tools.files import Made, check_free, read, tensors_of, write
from lora_trainer.lora_tools.names import diffusers_path
from lora_trainer.lora_tools.words import kept, write_beside
from lora_trainer.network.file import LoraFile
from lora_trainer.network.lora import LoraWeights

FORMATS = {
    "kohya": "as AUTOMATIC1111, Forge, ComfyUI and sd-scripts have them",
    "diffusers": "module paths with lora.down and lora.up, as diffusers wrote them until 2023",
    "peft": "module paths with lora_A and lora_B, as diffusers writes them today",
}
_ENDINGS = {  # of the format: in the UNet, in a text encoder
    "diffusers": (("lora.down", "lora.up"), ("lora_linear_layer.down", "lora_linear_layer.up")),
    "peft": (("lora_A", "lora_B"), ("lora_A", "lora_B")),
}


def convert(path: Path, form: str, output: Path, precision: str = "fp16", overwrite: bool = False) -> Made:
    """The same LoRA with the keys of a format.

    diffusers' formats have no alpha, so it goes into the weights. diffusers reads no LoRA with a learned word in it:
    for its formats a word becomes an embedding's file beside the LoRA.

    Raises:
        ConfigError: for a format that isn't one, or if the result exists.
        FileError: if the file can't be read, or holds what the format has no names for.
    """
    if form not in FORMATS:
        raise ConfigError(f"There is no format {form}; choose one of {', '.join(FORMATS)}.")
    check_free(output, overwrite)
    file = read(path)
    own = form == "kohya"
    tensors = tensors_of(file.modules) if own else _with_paths(file, form)
    lines = kept(file) if own else write_beside(file, output, overwrite)
    write(output, tensors, file.metadata, precision, file.words if own else None)
    return Made(output, len(file.modules), [f"{output.name} has {form} keys: {FORMATS[form]}.", *lines])


def _with_paths(file: LoraFile, form: str) -> dict[str, Tensor]:
    if file.family is None:
        raise FileError(f"{file.path} doesn't tell which model family it is for, so its modules have no paths.")
    tensors = {}
    for key, weights in file.modules.items():
        if not isinstance(weights, LoraWeights):
            raise FileError(f"{file.path} can't be converted: {form} has no names for {weights.label} ({key}).")
        path = diffusers_path(key, file.family)
        if path is None:
            raise FileError(f"{file.path} can't be converted: {form} has no name for {key}.")
        down, up = _ENDINGS[form][not path.startswith("unet.")]
        tensors[f"{path}.{down}.weight"] = weights.down
        tensors[f"{path}.{up}.weight"] = weights.up * (weights.alpha / weights.rank)
    return tensors
