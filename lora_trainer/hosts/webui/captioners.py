"""The WebUI's own captioners: its BLIP, which "Interrogate CLIP" begins with, and its DeepBooru.

Only what describes the image is asked: the lists of artists and flavours that "Interrogate CLIP" adds are no caption,
and need another model. Where the WebUI would download a model now, that is left to the user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from modules import shared

from lora_trainer.errors import ConfigError, FileError, LoraTrainerError, first_line, quoted
from lora_trainer.hosts.base import Captioner, Described

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 512  # px: what DeepBooru sees
LEAST = 0.05  # of probability: less likely tags aren't told at all
NONE_HERE = (
    "This WebUI has neither BLIP nor DeepBooru any more; use a WD14 tagger, BLIP or Florence-2 from a folder of yours."
)
FILES = {  # module, folder below models/, endings, what to put there, the button that has it downloaded
    "blip": ("modules.interrogate", "BLIP", (".pth", ".safetensors"), "model_base_caption_capfilt_large.pth",
             "Interrogate CLIP"),
    "deepbooru": ("modules.deepbooru", "torch_deepdanbooru", (".pt",), "model-resnet_custom_v3.pt",
                  "Interrogate DeepBooru"),
}  # fmt: skip


def problems() -> dict[str, str]:
    """Of each captioner why it can't be used now; "" where it can."""
    return {name: _problem(name) for name in FILES}


def _problem(name: str) -> str:
    module, below, endings, file, button = FILES[name]
    if find_spec(module) is None:
        return NONE_HERE
    from modules import paths

    folder = Path(paths.models_path) / below
    if any(path.suffix in endings for path in folder.glob("**/*")):
        return ""
    return (
        f"Its model isn't there yet: put {file} into {folder}, or press “{button}” in img2img once, which downloads it."
    )


@contextmanager
def opened(name: str, bring_blip: Callable[[Any], None]) -> Iterator[Captioner]:
    """One of them, in memory for as long as the block lasts, and then parked as the WebUI parks it.

    Args:
        bring_blip: loads the interrogator's BLIP, without its CLIP, to where it computes.

    Raises:
        LoraTrainerError: one sentence, if it can't be used.
    """
    if name not in FILES:
        raise ConfigError(f"There is no captioner {quoted(name)} in this WebUI.")
    if problem := _problem(name):
        raise FileError(problem)
    model: Any = shared.interrogator if name == "blip" else _booru()
    begin, end = (lambda: bring_blip(model), model.send_blip_to_ram) if name == "blip" else (model.start, model.stop)
    try:
        begin()
    except LoraTrainerError:
        raise
    except Exception as error:  # whatever is wrong with the files, or with packages of the WebUI
        raise FileError(f"The WebUI's {FILES[name][1]} can't be loaded ({first_line(error)}).") from error
    try:
        yield Blip(model) if name == "blip" else DeepBooru(model)
    finally:
        end()


def _booru() -> Any:
    from modules import deepbooru

    return deepbooru.model


class Blip:
    """The interrogator's BLIP, with the WebUI's settings for it (beams, length)."""

    def __init__(self, interrogator: Any) -> None:
        self._interrogator = interrogator

    def describe(self, image: Image) -> Described:
        """See :class:`lora_trainer.hosts.base.Captioner`."""
        return Described(sentence=str(self._interrogator.generate_caption(image)).strip())


class DeepBooru:
    """The WebUI's DeepBooru, with the probabilities that it gives."""

    def __init__(self, booru: Any) -> None:
        self._model = booru.model

    def describe(self, image: Image) -> Described:
        """See :class:`lora_trainer.hosts.base.Captioner`."""
        import numpy as np
        from modules import images

        fitted = np.asarray(images.resize_image(2, image, SIDE, SIDE), dtype=np.float32)[None] / 255
        like = next(self._model.parameters())
        with torch.no_grad():
            likely = self._model(torch.from_numpy(fitted).to(like.device, like.dtype))[0].float().cpu().tolist()
        found = [(tag.replace("_", " "), share) for tag, share in zip(self._model.tags, likely, strict=False)
                 if share >= LEAST and not tag.startswith("rating:")]  # fmt: skip
        return Described(tags=tuple(sorted(found, key=lambda row: -row[1])))
