"""BLIP (Li et al. 2022) through transformers, from a folder as huggingface.co has it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lora_trainer.hosts.base import Described

if TYPE_CHECKING:
    from PIL.Image import Image

LONGEST = 50  # tokens of a sentence
BEAMS = 3  # as in BLIP's own program


class Blip:
    """Describes an image in a sentence."""

    def __init__(self, model: Any, processor: Any) -> None:
        self._model, self._processor = model, processor

    def describe(self, image: Image) -> Described:
        """See :class:`lora_trainer.hosts.base.Captioner`."""
        pixels = self._processor(images=image, return_tensors="pt")["pixel_values"].to(self._model.device)
        with torch.no_grad():
            tokens = self._model.generate(pixel_values=pixels, max_new_tokens=LONGEST, num_beams=BEAMS)
        return Described(sentence=str(self._processor.decode(tokens[0], skip_special_tokens=True)).strip())


def opened(folder: Path) -> Blip:
    """The model of a folder, on the GPU if there is one."""
    from transformers import BlipForConditionalGeneration, BlipProcessor

    processor = BlipProcessor.from_pretrained(folder, local_files_only=True)
    model = BlipForConditionalGeneration.from_pretrained(folder, local_files_only=True)
    return Blip(model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), processor)
