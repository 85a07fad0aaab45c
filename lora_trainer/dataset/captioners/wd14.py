"""WD14 taggers through onnxruntime: ``model.onnx`` and ``selected_tags.csv``, as huggingface.co has them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from lora_trainer.errors import ConfigError, FileError
from lora_trainer.hosts.base import Described

if TYPE_CHECKING:
    from collections.abc import Sequence

GENERAL, CHARACTER = "0", "4"  # categories of tags; 9 are ratings, which describe nothing
LEAST = 0.05  # of probability: less likely tags aren't told at all
SMILEYS = 3  # characters: "^_^" keeps its underscore
USUAL_SIDE = 448  # px, where the model leaves it open


class Tagger:
    """Tags an image."""

    def __init__(self, session: Any, tags: Sequence[tuple[str, str]]) -> None:
        """Args:
        session: onnxruntime's; takes [1, side, side, 3] float32, BGR in 0…255, and gives probabilities [1, tags].
        tags: of each output the name, and its category.
        """
        self._session, self._tags = session, tags
        self._input = session.get_inputs()[0]
        side = self._input.shape[1]
        self._side = side if isinstance(side, int) else USUAL_SIDE

    def describe(self, image: Image.Image) -> Described:
        """See :class:`lora_trainer.hosts.base.Captioner`."""
        square = Image.new("RGB", (max(image.size),) * 2, (255, 255, 255))
        square.paste(image, ((square.width - image.width) // 2, (square.height - image.height) // 2))
        small = square.resize((self._side, self._side), Image.Resampling.BICUBIC)
        pixels = np.asarray(small, dtype=np.float32)[None, :, :, ::-1]
        likely = self._session.run(None, {self._input.name: np.ascontiguousarray(pixels)})[0][0]
        found = [(name, category, float(share)) for (name, category), share in zip(self._tags, likely, strict=True)
                 if category in (GENERAL, CHARACTER) and share >= LEAST]  # fmt: skip
        found.sort(key=lambda row: -row[2])
        names = frozenset(name for name, category, _ in found if category == CHARACTER)
        return Described(tags=tuple((name, share) for name, _, share in found), names=names)


def opened(folder: Path) -> Tagger:
    """The tagger of a folder, on the GPU where onnxruntime can use one.

    Raises:
        ConfigError, FileError: onnxruntime is missing, or the files don't belong together.
    """
    try:
        import onnxruntime
    except ImportError:
        raise ConfigError("A WD14 tagger needs onnxruntime; install it with pip install onnxruntime.") from None
    with (folder / "selected_tags.csv").open(encoding="utf-8-sig", newline="") as file:
        tags = [(_written(row["name"]), row["category"]) for row in csv.DictReader(file)]
    usable = [one for one in ("CUDAExecutionProvider", "CPUExecutionProvider")
              if one in onnxruntime.get_available_providers()]  # fmt: skip
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=usable)
    given = session.get_outputs()[0].shape[-1]
    if isinstance(given, int) and given != len(tags):
        raise FileError(
            f"{folder} holds a tagger of {given} tags and a list of {len(tags)}; take both files from the same place."
        )
    return Tagger(session, tags)


def _written(name: str) -> str:
    return name if len(name) <= SMILEYS else name.replace("_", " ")
