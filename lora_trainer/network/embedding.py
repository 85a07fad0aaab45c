"""The learned word of pivotal tuning: the trigger word's own token embeddings, trained beside the LoRA.

Where a caption has the word's tokens, the text encoder reads trained vectors instead of its table's; the table isn't
written. As many vectors as the word has tokens, so that nothing in a caption moves. The file holds them as
AUTOMATIC1111 reads embeddings that come with a LoRA (``bundle_emb.WORD.…``): there the word in a prompt means them
while the LoRA is in it, at whatever strength.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_trainer.errors import ConfigError, FileError, UnsupportedModelError, quoted
from lora_trainer.hosts.base import TextEncoder
from lora_trainer.network.adapter import Adapter, Control
from lora_trainer.network.targets import Target
from lora_trainer.tokens import tokenise

PREFIX = "bundle_emb."
_ONE, _TWO = ("string_to_param.*",), ("clip_l", "clip_g")  # of one text encoder; of SDXL's two


class EmbeddingModule(Adapter):
    """A word's vectors in one text encoder, [tokens, width]; at first those of the table."""

    LABEL = "learned word"

    def __init__(self, target: Target, tokens: Sequence[int], part: str, control: Control) -> None:
        super().__init__(target, len(tokens), len(tokens), control)
        self.tokens, self.part = tuple(tokens), part
        self.weights = {"vectors": nn.Parameter(self._table().clone())}

    @property
    def vectors(self) -> nn.Parameter:
        """[tokens, width]."""
        return self.weights["vectors"]

    def _table(self) -> Tensor:
        """What the text encoder's own table has for the tokens, fp32 [tokens, width]."""
        table: Any = self.target.module.weight
        return table.detach()[list(self.tokens)].float()

    def copy_from(self, weights: Any, path: Path) -> None:
        """See :class:`lora_trainer.network.adapter.Adapter`; ``weights`` is the tensor."""
        if weights.shape != self.vectors.shape or not bool(torch.isfinite(weights).all()):
            raise FileError(
                f"{path} has a learned word that doesn't fit this model: {self.key} is {tuple(weights.shape)}, "
                f"not {tuple(self.vectors.shape)}."
            )
        self.vectors.data.copy_(weights)

    def file_parts(self) -> dict[str, Tensor]:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        return {self.part: self.vectors.detach()}

    @torch.no_grad()
    def take_parts(self, parts: Mapping[str, Tensor]) -> None:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        self.vectors.copy_(parts[self.part])

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        """``y`` [..., T, C], the table's answer to the tokens ``x`` [..., T], with the vectors in the word's places."""
        count, length = len(self.tokens), x.shape[-1]
        if not self.control.active or count > length:
            return y
        windows = x.unfold(-1, count, 1)
        begins = (windows == torch.tensor(self.tokens, device=x.device)).all(-1)
        place = torch.full_like(x, -1)
        for number in range(count):
            here = F.pad(begins, (number, count - 1 - number))
            place = torch.where(here, number, place)
        own = F.embedding(place.clamp(min=0), self.vectors.to(y.dtype))
        return torch.where((place >= 0)[..., None], own, y)

    def change(self) -> Tensor:
        """How far the vectors are from the table's."""
        return self.vectors - self._table()

    @torch.no_grad()
    def shrink(self, ratio: Tensor) -> None:
        """See :class:`lora_trainer.network.adapter.Adapter`."""
        table = self._table()
        self.vectors.copy_(table + ratio * (self.vectors - table))


def learned_word(word: str, encoders: Sequence[TextEncoder], control: Control) -> list[EmbeddingModule]:
    """A word's vectors in all text encoders; they change nothing yet.

    Raises:
        ConfigError: if it can't be the name of an embedding.
        UnsupportedModelError: if a text encoder's table isn't found.
    """
    tokens = tokenise(word)
    if not tokens or "." in word:
        raise ConfigError(f"pivotal_tuning can't learn {quoted(word)}; use a trigger word of letters and digits.")
    made = []
    for encoder, part in zip(encoders, _TWO if len(encoders) == 2 else _ONE, strict=True):
        path, table = _find_table(encoder)
        shape = (len(tokens), int(table.weight.shape[1]))
        target = Target(f"{PREFIX}{word}", path, table, shape, "text_encoder")
        made.append(EmbeddingModule(target, tokens, part, control))
    return made


def words_of_file(
    tensors: Mapping[str, Tensor], encoders: Sequence[TextEncoder], control: Control, path: Path
) -> list[EmbeddingModule]:
    """The learned words of a file.

    Args:
        tensors: those whose names begin with :data:`PREFIX`.

    Raises:
        FileError: if one is incomplete or was made for another model.
    """
    made = []
    for word in dict.fromkeys(name.removeprefix(PREFIX).partition(".")[0] for name in tensors):
        for module in learned_word(word, encoders, control):
            own = [name for name in tensors if name.startswith(f"{module.key}.")]
            name = own[0] if len(encoders) == len(own) == 1 else f"{module.key}.{module.part}"  # OneTrainer: clip_l
            tensor = tensors.get(name)
            if tensor is None:
                raise FileError(
                    f"{path} has no {module.part} for its learned word {quoted(word)}; it is for another model."
                )
            module.copy_from(tensor.float(), path)
            made.append(module)
    return made


def _find_table(encoder: TextEncoder) -> tuple[str, Any]:
    """The table itself: WebUIs put another module around it."""
    found = [
        (path, module) for path, module in encoder.module.named_modules()
        if "token_embedding" in path.split(".") and getattr(getattr(module, "weight", None), "ndim", 0) == 2
    ]  # fmt: skip
    if not found:
        raise UnsupportedModelError(
            f"The text encoder {encoder.prefix} has no token_embedding; switch pivotal_tuning off to train without."
        )
    return found[-1]
