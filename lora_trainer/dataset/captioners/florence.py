"""Florence-2 (Xiao et al. 2023) through transformers, from a folder as huggingface.co has it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lora_trainer.errors import ConfigError, FileError
from lora_trainer.files import read_object
from lora_trainer.hosts.base import Described

if TYPE_CHECKING:
    from PIL.Image import Image

TASK = "<DETAILED_CAPTION>"  # one or two sentences
LONGEST = 80  # tokens; what CLIP reads of a caption is less
BEAMS = 3  # as in its model card


class Florence:
    """Describes an image in a sentence or two."""

    def __init__(self, model: Any, processor: Any) -> None:
        self._model, self._processor = model, processor

    def describe(self, image: Image) -> Described:
        """See :class:`lora_trainer.hosts.base.Captioner`."""
        asked = self._processor(text=TASK, images=image, return_tensors="pt").to(self._model.device)
        with torch.no_grad():
            tokens = self._model.generate(**asked, max_new_tokens=LONGEST, num_beams=BEAMS)
        text = self._processor.batch_decode(tokens, skip_special_tokens=True)[0]
        return Described(sentence=" ".join(str(text).split()))


def opened(folder: Path) -> Florence:
    """The model of a folder, on the GPU if there is one.

    Raises:
        ConfigError, FileError: if transformers doesn't know it, or only by code that the folder brings along.
    """
    try:
        from transformers import AutoProcessor, Florence2ForConditionalGeneration
    except ImportError:
        raise ConfigError("Florence-2 needs transformers 4.56 or later; use BLIP here, or a WD14 tagger.") from None
    if "auto_map" in read_object(folder / "config.json"):
        raise FileError(
            f"{folder} is Florence-2 in its first format, which brings a program of its own that isn't run; give "
            "florence-community/Florence-2-base or -large from huggingface.co."
        )
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    model = Florence2ForConditionalGeneration.from_pretrained(folder, local_files_only=True)
    return Florence(model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), processor)
